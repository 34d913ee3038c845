"""Random changes of training series, by tsai's transforms."""

from __future__ import annotations

from tsai.data.transforms import TSMagScale, TSRandomShift, TSTimeWarp


def transforms(strength: float) -> list:
    """Batch transforms for the training series alone (fastai leaves them out of validation); none for strength 0.

    Each batch is warped in time, shifted around its end by up to 5% and scaled, each with probability one half.

    Args:
        strength: 1 is light; the magnitudes are multiples of it.
    """
    if not strength:
        return []
    return [
        TSTimeWarp(magnitude=0.1 * strength, p=0.5),
        TSRandomShift(magnitude=0.05 * strength, p=0.5),
        TSMagScale(magnitude=0.2 * strength, p=0.5),
    ]
