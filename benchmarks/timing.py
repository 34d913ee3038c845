"""Timing alternatives against each other: interleaved rounds, medians, spread, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, or their ratios to another's, a value for each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of all rounds."""
        return statistics.median(self.rounds)

    def over(self, base: Timing) -> Timing:
        """The ratios to `base`, round by round: what disturbs a round disturbs both."""
        return Timing(tuple(ours / theirs for ours, theirs in zip(self.rounds, base.rounds, strict=True)))

    def figures(self) -> dict[str, float]:
        """The ``median`` and, as ``low`` and ``high``, the first and the third quartile."""
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return {"median": self.median, "low": low, "high": high}


def warm_up(seconds: float = 3.0) -> None:
    """Keeps the machine busy: the first seconds of a process are unusable for timing."""
    a = torch.randn(512, 512)
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        a @ a


def compare(functions: dict[str, Callable[[], object]], seconds: float, least: int = 5) -> dict[str, Timing]:
    """Times every function, one call each per round, so that a disturbance hits all of them alike.

    Args:
        functions: What to time, by name; each is called twice before it counts.
        seconds: How long to go on with rounds.
        least: The fewest rounds.
    """
    for function in functions.values():
        function(), function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    start, rounds = time.perf_counter(), 0
    while rounds < least or time.perf_counter() - start < seconds:
        for name, function in functions.items():
            before = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - before)
        rounds += 1
    return {name: Timing(tuple(t)) for name, t in times.items()}
