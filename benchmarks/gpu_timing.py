"""What a dynamic convolution takes on a CUDA device: single layers and whole networks, way by way, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import dynconv_plugins as dc

from .operators import step

LAYERS = [(64, 56), (128, 28), (256, 14), (512, 7), (64, 16), (128, 8), (256, 4), (512, 2)]
QUICK = LAYERS[:4]
KERNELS = (1, 4)
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
CALLS = 5  # between two events: what the host takes to launch one then hides behind the one before


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


# What makes a way's call, of the backend that is forced, if any, and whether torch.compile is given it.
Maker = Callable[[str | None, bool], Callable[[], object]]


def layer(
    channels: int, size: int, kernels: int, batch: int, train: bool, rounds: int, ways: Iterable[str] = WAYS
) -> Row:
    """A 3x3 convolution of ResNet-18 with all attentions, bf16, channels last; `ways` are of `WAYS`."""
    title, run = f"{channels} @ {size}, K={kernels}", "train" if train else "forward"
    return measured(title, run, lambda: _layer(channels, size, kernels, batch, train), rounds, ways)


def _layer(channels: int, size: int, kernels: int, batch: int, train: bool) -> Maker:
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

    return made_for


def network(name: str, batch: int, size: int, rounds: int, ways: Iterable[str] = WAYS) -> Row:
    """Forward and backward of a whole network under bf16 autocast, channels last; `BASE` is the plain ResNet-18."""
    return measured(f"{name} @ {size}", "train", lambda: _network(name, batch, size), rounds, ways)


def _network(name: str, batch: int, size: int) -> Maker:
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

    return made_for


def measured(what: str, run: str, prepare: Callable[[], Maker], rounds: int, ways: Iterable[str] = WAYS) -> Row:
    """Times all `ways`. One that raises is a failure in the row, whatever it raises, and the others go on.

    Triton's own errors derive from `Exception` alone, and after one crash on the device nothing runs there any more.
    """
    row = Row(what, run, {}, {}, {})
    functions = {}
    maker = None
    for way in ways:
        backend, compiled = WAYS[way]
        try:
            maker = maker or prepare()
            torch._dynamo.reset()
            before = torch.cuda.memory_allocated()
            function = _forced(maker(backend, compiled), backend)
            for _ in range(3):
                function()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            function()
            torch.cuda.synchronize()
            row.memory[way] = (torch.cuda.max_memory_allocated() - before) / 2**20
            functions[way] = function
        except Exception as error:
            row.failures[way] = in_a_line(error)
            with suppress(Exception):
                torch.cuda.empty_cache()
    row.times.update(timed(functions, rounds, row.failures))
    return row


def in_a_line(error: Exception) -> str:
    """The error's name and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _forced(function: Callable[[], object], backend: str | None) -> Callable[[], object]:
    def call():
        with dc.backend(backend) if backend else nullcontext():
            return function()

    return call


def timed(
    functions: dict[str, Callable[[], object]], rounds: int, failures: dict[str, str]
) -> dict[str, tuple[float, float, float]]:
    """Median and quartiles of milliseconds a call, `CALLS` of each a round, so that all see the same clock.

    It is the device's own time, unless the host takes longer to launch a call than the device to do it. What raises
    goes into `failures`, and is left out.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name in [name for name in functions if name not in failures]:
            try:
                times[name].append(_milliseconds(functions[name]))
            except Exception as error:
                failures[name] = in_a_line(error)
    quartiles = {name: statistics.quantiles(values, n=4) for name, values in times.items() if name not in failures}
    return {name: (middle, low, high) for name, (low, middle, high) in quartiles.items()}


def _milliseconds(function: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    function()  # The device has something to do while the host launches what is timed.
    start.record()
    for _ in range(CALLS):
        function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / CALLS
