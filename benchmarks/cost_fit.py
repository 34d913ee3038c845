"""Fits the constants of dynconv_plugins/backends/costs.py to measured times.

A cost is linear in the constants, and for a problem with gradients linear in the multipliers of training once the
constants are given. So a constant's coefficient is the cost with all the others at zero, and fitting is linear least
squares on relative errors. Unknown is by what factor a constant changes: factors are of one size, and one that the
times say nothing about can stay at 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dynconv_plugins.backends import BACKENDS, _cheapest, choose_backend, costs, name_of
from dynconv_plugins.problem import Problem

THRESHOLDS = ("CACHE",)  # of which a cost is no linear function
LEAST = 0.02  # the smallest factor: a constant of zero would make what it stands for free at any size
KEEP = 0.02  # how much a factor of 2 or 0 counts, against one time in a hundred that is wrong by as much


@dataclass(frozen=True)
class Measured:
    """One problem and how long each backend took, in seconds."""

    problem: Problem
    times: Mapping[str, float]

    @property
    def fastest(self) -> str:
        return min(self.times, key=self.times.__getitem__)


@contextmanager
def using(values: Mapping[str, float]) -> Iterator[None]:
    """Other constants within the block, and no remembered choice in it or after it."""
    before = costs.constants()
    costs.use(values)
    _cheapest.cache_clear()
    try:
        yield
    finally:
        costs.use(before)
        _cheapest.cache_clear()


def chosen(problem: Problem, values: Mapping[str, float]) -> str:
    """The backend that the engine would run with these constants."""
    with using(values):
        return name_of(choose_backend(problem))


def fit(rows: Iterable[Measured]) -> dict[str, float]:
    """Constants from the rows without gradients, then the multipliers of training from those with them."""
    rows = list(rows)
    values = costs.constants()
    multipliers = [name for name in values if name.startswith("TRAIN.")]
    plain = [name for name in values if name not in (*multipliers, *THRESHOLDS)]
    for names, grad in ((plain, False), (multipliers, True)):
        values |= _fitted([row for row in rows if row.problem.grad == grad], names, values)
    return values


def _fitted(rows: list[Measured], names: list[str], values: dict[str, float]) -> dict[str, float]:
    """The named constants; the others are as in `values`.

    What all backends of a problem have in common, e.g. checking its arguments, takes no part in the choice: it is one
    more unknown, in units of a call, and forgotten.
    """
    cells = [(row.problem, name, seconds) for row in rows for name, seconds in row.times.items()]
    if not cells:
        return {name: values[name] for name in names}
    base = _costs(cells, values | dict.fromkeys(names, 0.0))
    parts = [_costs(cells, values | {n: values[n] * (n == name) for n in names}) - base for name in names]
    common = torch.full_like(base, values["CALL"])
    seconds = torch.tensor([seconds for *_, seconds in cells], dtype=torch.float64)
    a = torch.stack([*parts, common], 1) / seconds[:, None]
    b = 1 - base / seconds
    pull = math.sqrt(KEEP * len(cells) / 100)
    a = torch.cat((a, pull * torch.eye(len(names), len(names) + 1, dtype=a.dtype)))
    b = torch.cat((b, torch.full((len(names),), pull, dtype=b.dtype)))
    least = torch.tensor([LEAST] * len(names) + [0.0], dtype=a.dtype)
    factors = bounded_least_squares(a, b, least).tolist()
    return {name: values[name] * factor for name, factor in zip(names, factors, strict=False)}


def _costs(cells: list[tuple[Problem, str, float]], values: Mapping[str, float]) -> torch.Tensor:
    with using(values):
        return torch.tensor([BACKENDS[name].cost(problem) for problem, name, _ in cells], dtype=torch.float64)


def bounded_least_squares(a: torch.Tensor, b: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """``argmin |a x - b|`` over ``x >= least``, `a` of full column rank.

    Source: the active set method of Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23.
    """
    b = b - a @ least
    above, free = torch.zeros_like(least), torch.zeros_like(least, dtype=torch.bool)
    while True:
        slope = (a.T @ (b - a @ above)).masked_fill(free, -math.inf)
        if slope.max() <= 1e-10 * (a.T @ b).abs().max():
            return least + above
        free[slope.argmax()] = True
        while True:
            best = torch.zeros_like(above)
            best[free] = torch.linalg.lstsq(a[:, free], b).solution
            low = free & (best <= 0)
            if not low.any():
                break
            # As far towards the best as all stay above their bounds; the first to reach its own is held there.
            above += (above[low] / (above[low] - best[low])).min() * (best - above)
            free &= above > 1e-12
        above = best


def losses(rows: Iterable[Measured], values: Mapping[str, float]) -> list[float]:
    """Seconds of the chosen backend over the fastest one's, for each problem."""
    return [row.times[chosen(row.problem, values)] / row.times[row.fastest] for row in rows]


def mean(ratios: list[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def summary(rows: list[Measured], held: list[bool], now: dict[str, float], fitted: dict[str, float]) -> list[dict]:
    """How much slower than the fastest backend the choices are, on the shapes of the fit and on the others."""
    out = []
    for name, part in (("fitted to", False), ("held out", True)):
        for grad in (False, True):
            some = [row for row, h in zip(rows, held, strict=True) if h == part and row.problem.grad == grad]
            sides = {side: losses(some, values) for side, values in (("now", now), ("fitted", fitted))}
            for side, ratios in sides.items():
                facts = {"shapes": name, "pass": "train" if grad else "forward", "constants": side}
                out.append({**facts, "problems": len(ratios), "mean": mean(ratios), "worst": max(ratios)})
    return out
