"""Models that are one and the same function: their tests are one test, which no correction may count twice."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import TypeVar

from .readings import predictions
from .records import STATIC, Model, Task
from .statistics import holm

Name = TypeVar("Name", bound=Hashable)


def alike(task: Task) -> dict[str, str]:
    """Dynamic models that predict what an earlier one of their network does, on every sample of the same runs.

    Two ways to write one computation, as A2D2C's and A2D2C+'s are here, train alike.

    Returns:
        Keys of such models, and of the first that predicts the same.
    """
    first: dict[tuple[str, ...], str] = {}
    found = {}
    for model in task.ordered():
        prints = _prints(model)
        if model.operator == STATIC or not prints:
            continue
        key = first.setdefault((model.network, *prints), model.key)
        if key != model.key:
            found[model.key] = key
    return found


def _prints(model: Model) -> list[str]:
    """What each run predicted, as text that only equal runs share; nothing where that of a run is not known."""
    made = []
    for unit, result in model.results.items():
        known = predictions(result.predictions)
        if known is None:
            return []
        made.append(f"{unit} " + " ".join(hashlib.sha256(a.astype("int64").tobytes()).hexdigest() for a in known))
    return made


def corrected(ps: Mapping[Name, float | None], same: Mapping[Name, Name]) -> tuple[dict[Name, float | None], int]:
    """Holm's correction with every test counted once.

    Args:
        ps: p by test; None where there is none.
        same: Tests that are one with another of `ps`, and with which.

    Returns:
        The corrected p by test, and for how many tests.
    """
    counted = {name: p for name, p in ps.items() if name not in same}
    adjusted = dict(zip(counted, holm(list(counted.values())), strict=True))
    made = {name: adjusted[same.get(name, name)] for name in ps}
    return made, sum(p is not None for p in counted.values())


def remark(task: Task) -> str:
    """That in a sentence; empty where no two models are the same."""
    told = [
        f"{task.name_of(task.models[key])} predicts exactly what {task.name_of(task.models[first])} does in every run: "
        "the two are counted once. "
        for key, first in alike(task).items()
    ]
    return "".join(told)
