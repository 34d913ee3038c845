"""Exchanging the modules of a model, and what it costs before and after."""

from __future__ import annotations

import statistics
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from .complexity import complexity


class Cost(NamedTuple):
    """What a model costs; a value that was not measured is ``None``.

    Attributes:
        params: Number of learned values.
        macs: Multiply-adds for one sample, see `complexity`.
        latency: Median milliseconds for one sample, in eval mode.
        missing: What was to be measured and could not be, with the reason.
    """

    params: int
    macs: int | None = None
    latency: float | None = None
    missing: str | None = None


def replaced(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts modules in the place of others, in place and under every name they have; returns the model.

    Args:
        model: Returned itself, unless it is among the exchanged.
        new: From the modules to go to those that come.
    """
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if path and module in new:
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new[module])
    return new.get(model, model)


def costs(models: Sequence[nn.Module], input_size: Sequence[int] | None, timed: bool = False) -> list[Cost]:
    """What each of the models costs for one sample; without what cannot be measured, which `Cost.missing` names.

    Args:
        models: In eval mode.
        input_size: The input's shape with its batch, which counts as one; ``None`` leaves all but parameters out.
        timed: Whether latencies are measured too.
    """
    params = [sum(p.numel() for p in model.parameters()) for model in models]
    if input_size is None:
        return [Cost(n) for n in params]
    size = (1, *tuple(input_size)[1:])
    missing = []

    def tried(name: str, measure: Callable[[], list]) -> list:
        try:
            return measure()
        # Whatever the models' own code raises for one sample or under a tracer, or that fvcore is not installed, is no
        # reason to lose the models.
        except Exception as e:
            missing.append(f"{name} ({textwrap.shorten(str(e) or type(e).__name__, 120)})")
            return [None] * len(models)

    macs = tried("MAdds", lambda: [complexity(model, size).macs for model in models])
    times = tried("latency", lambda: latencies(models, size)) if timed else [None] * len(models)
    return [Cost(*values, ", ".join(missing) or None) for values in zip(params, macs, times, strict=True)]


@torch.no_grad()
def latencies(models: Sequence[nn.Module], size: Sequence[int], runs: int = 21) -> list[float]:
    """Median milliseconds of a forward pass of each model, the models taking turns; the first two rounds warm up."""
    first = next(models[0].parameters())
    x = torch.randn(tuple(size), device=first.device, dtype=first.dtype)
    times: list[list[float]] = [[] for _ in models]
    for _ in range(runs + 2):
        for model, taken in zip(models, times, strict=True):
            start = _now(x)
            model(x)
            taken.append(_now(x) - start)
    return [1e3 * statistics.median(taken[2:]) for taken in times]


def _now(x: torch.Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


def cost_lines(before: Cost, after: Cost) -> list[str]:
    """One line for each value that was measured, with what is left of it, and one for those that could not be."""
    lines = []
    for name, old, new, unit in (
        ("parameters", before.params, after.params, ",d"),
        ("MAdds", before.macs, after.macs, ",d"),
        ("latency", before.latency, after.latency, ".2f"),
    ):
        if old and new is not None:  # a count of nothing has no part that is left
            ms = " ms" if name == "latency" else ""
            lines.append(f"{name:<11}{old:{unit}}{ms} -> {new:{unit}}{ms}  ({100 * new / old:.1f}% left)")
    if missing := before.missing or after.missing:
        lines.append(f"not measured: {missing}")
    return lines
