"""How much the demo does: `default` fits into 15 minutes on two cores, `smallest` into four."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Amounts per task; a data set that holds less is taken whole.

    Args:
        classes: Classes of images; the first ones by name.
        train, test: Images per class.
        epochs: Of image training.
        batch: Images a step.
        mask_train, mask_test: Images with masks.
        iterations: Of segmentation training, with batches of 8.
        series_epochs: Of time series training.
        seeds: Runs on the time series.
    """

    classes: int
    train: int
    test: int
    epochs: int
    batch: int
    mask_train: int
    mask_test: int
    iterations: int
    series_epochs: int
    seeds: int


SIZES = {
    "smallest": Size(
        classes=5,
        train=32,
        test=20,
        epochs=2,
        batch=16,
        mask_train=32,
        mask_test=12,
        iterations=10,
        series_epochs=8,  # batch statistics need some 80 steps before evaluation means anything
        seeds=1,
    ),
    "default": Size(
        classes=10,
        train=200,
        test=50,
        epochs=4,
        batch=32,
        mask_train=180,
        mask_test=120,
        iterations=60,
        series_epochs=16,
        seeds=1,
    ),
}
