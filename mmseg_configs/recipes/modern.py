"""A recipe as networks for segmentation are trained today: AdamW, warm-up, poly decay, strong augmentation, EMA."""

from __future__ import annotations

from typing import Any

# Validation is not free at a size where an epoch is a few iterations: this often in all.
EPOCHS, BATCH, DROPOUT, VALIDATIONS = 80, 16, 0.1, 20


def augmentation(pixels: int) -> list[dict[str, Any]]:
    """Transforms between loading and packing, for crops of ``[pixels, pixels]``."""
    return [
        dict(type="RandomResize", scale=(4 * pixels, pixels), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(pixels, pixels), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
    ]


def settings(epochs: int) -> dict[str, Any]:
    """Optimiser, schedule and hooks for `epochs` epochs."""
    warm = max(1, epochs // 10)
    # Told in epochs, changed by the iteration: mmengine knows how many an epoch has, on however many processes.
    by = dict(by_epoch=True, convert_to_iter_based=True)
    return dict(
        optim_wrapper=dict(
            type="OptimWrapper",
            optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
            clip_grad=dict(max_norm=1.0),
        ),
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.01, begin=0, end=warm, **by),
            dict(type="PolyLR", power=0.9, eta_min=1e-5, begin=warm, end=max(epochs, warm + 1), **by),
        ],
        # The mean reaches back over the last tenth of the steps so far, however many there are. Buffers are copied,
        # not averaged: a temperature is what it is.
        custom_hooks=[dict(type="EMAHook", ema_type="MomentumAnnealingEMA", momentum=0.0002, gamma=10)],
    )
