"""What a dynamic convolution takes on a CUDA device: single layers and whole networks, way by way, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import dynconv_plugins as dc

from .operators import step

LAYERS = [(64, 56), (128, 28), (256, 14), (512, 7), (64, 16), (128, 8), (256, 4), (512, 2)]
NETWORKS = ["resnet18_odconv", "resnet18_odconv4x"]
BASE = "static"
# Each way: the backend that is forced, if any, and whether torch.compile is given it.
WAYS = {
    BASE: (None, False),
    "grouped": ("grouped", False),
    "fused": ("fused", False),
    "static, compiled": (None, True),
    "fused, compiled": ("fused", True),
}


@dataclass(frozen=True)
class Row:
    """One layer or network in one pass.

    Attributes:
        times: By way, the median and the first and third quartile, in milliseconds.
        memory: By way, the most that was allocated at once beyond what all ways share, in MiB.
        failures: By way, why it could not be timed.
    """

    what: str
    run: str
    times: dict[str, tuple[float, float, float]]
    memory: dict[str, float]
    failures: dict[str, str]


def layer(channels: int, size: int, kernels: int, batch: int, train: bool, rounds: int) -> Row:
    """A 3x3 convolution of ResNet-18 with all attentions, bf16, channels last."""
    made = {"device": "cuda", "dtype": torch.bfloat16}
    x = torch.randn(batch, channels, size, size, **made).to(memory_format=torch.channels_last).requires_grad_(train)
    flat = torch.randn(kernels * channels, channels, 3, 3, **made) / (9 * channels) ** 0.5
    # As operators keep it: one 4-D parameter, so that it can lie channels last.
    weight = flat.to(memory_format=torch.channels_last).unflatten(0, (kernels, channels)).requires_grad_(train)
    one = flat[:channels].to(memory_format=torch.channels_last).requires_grad_(train)
    attention = dc.Attention(
        kernel=torch.rand(batch, kernels, **made).softmax(1).requires_grad_(train) if kernels > 1 else None,
        spatial=torch.rand(batch, 3, 3, **made).requires_grad_(train),
        input=torch.rand(batch, channels, **made).requires_grad_(train),
        output=torch.rand(batch, channels, **made).requires_grad_(train),
    )
    leaves = [x, weight, *(t for t in attention if t is not None)]

    def static():
        return F.conv2d(x, one, padding=1)

    def dynamic():
        return dc.dynamic_conv(x, weight, attention, padding=1)

    def made_for(backend: str | None, compiled: bool) -> Callable[[], object]:
        function = static if backend is None else dynamic
        function = torch.compile(function) if compiled else function
        return step(function, [x, one] if backend is None else leaves, train)

    return _row(f"{channels} @ {size}, K={kernels}", "train" if train else "forward", made_for, rounds)


def network(name: str, batch: int, size: int, rounds: int) -> Row:
    """Forward and backward of a whole network under bf16 autocast, channels last; `BASE` is the plain ResNet-18."""
    import timm

    import timm_models  # noqa: F401 - registers the names

    x = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)

    def made_for(backend: str | None, compiled: bool) -> Callable[[], object]:
        model = timm.create_model("resnet18" if backend is None else name)
        model = model.cuda().to(memory_format=torch.channels_last).train()
        called = torch.compile(model) if compiled else model

        def both():
            model.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss = called(x).float().logsumexp(1).mean()
            loss.backward()

        return both

    return _row(f"{name} @ {size}", "train", made_for, rounds)


def _row(what: str, run: str, made_for: Callable, rounds: int) -> Row:
    functions, failures, memory = {}, {}, {}
    for way, (backend, compiled) in WAYS.items():
        torch._dynamo.reset()
        before = torch.cuda.memory_allocated()
        try:
            function = _forced(made_for(backend, compiled), backend)
            for _ in range(3):
                function()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            function()
            torch.cuda.synchronize()
        except (RuntimeError, ValueError) as error:
            failures[way] = f"{type(error).__name__}: {error}".splitlines()[0]
            torch.cuda.empty_cache()
            continue
        memory[way] = (torch.cuda.max_memory_allocated() - before) / 2**20
        functions[way] = function
    return Row(what, run, timed(functions, rounds), memory, failures)


def _forced(function: Callable[[], object], backend: str | None) -> Callable[[], object]:
    def call():
        with dc.backend(backend) if backend else nullcontext():
            return function()

    return call


def timed(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float, float]]:
    """Median and quartiles of the device's own time, one call of each a round, so that all see the same clock."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            end.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(end))
    quartiles = {name: statistics.quantiles(values, n=4) for name, values in times.items()}
    return {name: (middle, low, high) for name, (low, middle, high) in quartiles.items()}
