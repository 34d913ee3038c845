"""What a model costs, found out fast enough for a hundred models: parameters, multiply-adds, latency."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from ..backends import counting, force

# The random numbers of a network's start take most of the time that building it takes, and no count needs them.
_RANDOM = {"normal_", "uniform_", "trunc_normal_", "erfinv_"}


class Unfilled(TorchFunctionMode):
    """Builds networks whose weights are left as memory happens to be."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(function, "__name__", "") in _RANDOM:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def macs(model: nn.Module, input_size: Sequence[int]) -> int:
    """Multiply-adds of one forward pass, the number that `dynconv_plugins.complexity` gives.

    That one traces the model, which takes some ten times as long as this, which runs it with torch's counter of
    floating point operations on; dynamic convolutions compute nothing in either.

    Args:
        model: In eval mode.
        input_size: With the batch.
    """
    # torch counts two operations a multiply-add.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.dynconv.counted: _dynamic})
    first = next(model.parameters(), torch.empty(()))
    with force(counting), torch.no_grad(), counter:
        model(torch.zeros(tuple(input_size), device=first.device, dtype=first.dtype))
    return counter.get_total_flops() // 2


def _dynamic(x, weight, kernel, spatial, channels, filters, out_size, combine, *_, out_shape=None, **__) -> int:
    """torch's formula for `counting.OP`, from shapes."""
    per_position = kernel is not None and len(kernel) > 2
    aggregated = not per_position and (combine == "sum" or weight[0] == 1)
    there = kernel is not None, spatial is not None or channels is not None, filters is not None
    return 2 * counting.multiply_adds(list(x), list(weight), list(out_shape), *there, aggregated)


def parameters(model: nn.Module) -> int:
    """How many learned values."""
    return sum(p.numel() for p in model.parameters())


def latency(model: nn.Module, x: Tensor, seconds: float = 1.0) -> tuple[float, float, float]:
    """Quartiles of a forward pass in milliseconds, by ``torch.utils.benchmark``.

    Args:
        model: In eval mode.
        x: Its input.
        seconds: About how long to measure.
    """
    with torch.inference_mode():
        started = time.perf_counter()
        model(x)
        model(x)
        once = (time.perf_counter() - started) / 2
        timer = Timer("model(x)", globals={"model": model, "x": x}, num_threads=torch.get_num_threads())
        # Blocks of a tenth of the time at most: quartiles need several.
        number = max(1, int(seconds / 10 / max(once, 1e-6)))
        times = [timer.timeit(number).mean * 1e3 for _ in range(10)]
    low, middle, high = torch.tensor(times).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return low, middle, high
