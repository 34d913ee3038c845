"""How the entries of a checkpoint differ from those of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

_COUNTER = "annealing_step"


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


def with_own_counter(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` with the counter of `dynconv_plugins.anneal` where the `own` state dict has it, and nowhere else.

    It is the place in a schedule, not a weight: a trained model is used by what knows nothing of its schedule.
    """
    rest = {key: value for key, value in weights.items() if key != _COUNTER}
    return {**rest, _COUNTER: weights.get(_COUNTER, own[_COUNTER])} if _COUNTER in own else rest


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
