"""How the entries of a checkpoint differ from those of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Differences(NamedTuple):
    """What keeps weights from being a model's.

    Attributes:
        missing: Keys that only the model has.
        unknown: Keys that only the weights have.
        shapes: Entries of another shape than the model's: both shapes in words.
    """

    missing: list[str]
    unknown: list[str]
    shapes: dict[str, str]


def instead(got: Tensor, wanted: Tensor | tuple[int, ...]) -> str:
    """Two shapes in words."""
    wanted = wanted.shape if isinstance(wanted, Tensor) else wanted
    return f"{list(got.shape)} instead of {list(wanted)}"


def compare(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Differences:
    """Compares `weights` with a model's `own` state dict, in the order of each."""
    return Differences(
        [key for key in own if key not in weights],
        [key for key in weights if key not in own],
        {
            key: instead(weights[key], value)
            for key, value in own.items()
            if key in weights and weights[key].shape != value.shape
        },
    )
