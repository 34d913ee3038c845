"""The study's own recipe: Table 1, and section 3 for augmentation and callbacks.

Where mmseg has no equal, the nearest stands here:

- the study's callbacks watch the validation loss; mmseg's validation computes none, so they watch its mIoU;
- Keras multiplies the brightness of every image; ``PhotoMetricDistortion`` does it to every second one (it calls the
  factor contrast), and cannot leave the hue alone: it may turn by one of 180 steps;
- Keras zooms to a square; here the shorter side is zoomed and a square is cut out.
"""

from __future__ import annotations

from typing import Any

EPOCHS, BATCH, DROPOUT, VALIDATIONS = 30, 32, 0.2, None
# A network whose temperature falls swings meanwhile: its first validation, and with it all that watches one, waits for
# the last temperature. A static network is watched from its first epoch.
SETTLES = True


def augmentation(pixels: int) -> list[dict[str, Any]]:
    """Transforms between loading and packing, for crops of ``[pixels, pixels]``."""
    return [
        dict(type="RandomResize", scale=(4 * pixels, pixels), ratio_range=(0.8, 1.2), keep_ratio=True),
        dict(type="RandomRotate", prob=1.0, degree=15.0),
        dict(type="RandomCrop", crop_size=(pixels, pixels)),
        dict(type="RandomFlip", prob=0.5),
        dict(
            type="PhotoMetricDistortion",
            brightness_delta=0,
            contrast_range=(0.8, 1.2),
            saturation_range=(1.0, 1.0),
            hue_delta=1,
        ),
    ]


def settings(epochs: int) -> dict[str, Any]:
    """Optimiser, schedule and hooks; how long it goes on changes none of them."""
    watched = dict(monitor="mIoU", rule="greater")
    return dict(
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3)),
        param_scheduler=[
            dict(
                type="ReduceOnPlateauLR",
                **watched,
                factor=0.1,
                patience=4,  # Keras acts when 5 epochs brought nothing, mmengine when more than `patience` did
                min_value=1e-6,
                by_epoch=True,
                end=10**9,  # or a resumed training that is given more epochs keeps the old end
            )
        ],
        # in points of mIoU: a network that has collapsed to one class repeats its score to the last digit
        custom_hooks=[dict(type="PatientStopping", **watched, patience=10, min_delta=0.01)],
    )
