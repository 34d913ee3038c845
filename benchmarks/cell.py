"""One cell of `benchmarks.models`: a network, an operator and a pass, timed beside the static network."""

from __future__ import annotations

import contextlib
import copy
import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.study.memory import peak, stored

from .networks import FCN, dynamic, loss, shape, static, timm_condconv
from .timing import compare, warm_up

SIDES = ("static", "engine", "grouped", "timm")
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-5),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# A stand-in's layout that takes this many times the other's has lost, and is not timed again and again: it may be slow.
LOST = 1.5
LEAST = 3
# Inputs take turns: nothing that is remembered of an input may count as speed.
INPUTS = 3


@dataclass(frozen=True)
class Cell:
    """What to measure.

    Attributes:
        network: A name of `networks`.
        size: Pixels of an image's side, or the length of a series.
        operator: Name in the registry.
        train: Forward and backward (and the optimizer's step), else inference.
        batch: Images or series a call.
        stem: As in `networks.dynamic`.
        options: The operator's, e.g. ``num_kernels``.
        against: What else to time, of ``'grouped'`` and ``'timm'``.
        optimizer: A name of `OPTIMIZERS`, or ``None``.
        seconds: How long to go on with rounds; there are at least `LEAST`.
        threads: torch's, on a CPU.
        device: ``'cpu'`` or ``'cuda'``.
        dtype: Autocast's, a name of `DTYPES`.
    """

    network: str
    size: int
    operator: str
    train: bool
    batch: int = 32
    stem: str = "imagenet"
    options: dict[str, Any] = field(default_factory=dict)
    against: tuple[str, ...] = ()
    optimizer: str | None = None
    seconds: float = 10.0
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def title(self) -> str:
        """For people."""
        unit = "steps" if self.network == FCN else "px"
        return f"{self.network} {self.operator}, {self.size} {unit}, {'training' if self.train else 'inference'}"


def measure(cell: Cell) -> dict[str, Any]:
    """Times all sides of a cell in interleaved rounds, each in both memory layouts, then takes their peak memory.

    Returns:
        The cell's own fields and, by side (`SIDES`): `layout`, the faster one; `times`, seconds (median and quartiles)
        a call; `per_second`, images or series; `ratio` to the static network's time in the same round (median and
        quartiles); `peak`, bytes of the call;
        `stored`, bytes of the model. `lost` has the seconds of layouts that were tried and not timed further, and
        `refused` why a side has no times.
    """
    torch.set_num_threads(cell.threads)
    torch.manual_seed(0)
    warm_up(min(3.0, cell.seconds))
    calls, sizes = _calls(cell)
    refused: dict[str, str] = {}
    trials: dict[tuple[str, str], float] = {}
    for (side, layout), call in calls.items():
        if side in refused:
            continue
        try:
            call()
            start = time.perf_counter()
            call()
            trials[side, layout] = time.perf_counter() - start
        except (ValueError, RuntimeError) as e:
            if side in ("static", "engine"):
                raise
            refused[side] = str(e).splitlines()[0]
    fastest = {side: min(t for (s, _), t in trials.items() if s == side) for side, _ in trials}
    kept = ("static", "engine")
    stay = {key: calls[key] for key, t in trials.items() if key[0] in kept or t <= LOST * fastest[key[0]]}
    times = compare(stay, cell.seconds, LEAST)
    best = {side: min((key for key in times if key[0] == side), key=lambda key: times[key].median) for side in fastest}
    base = times[best["static"]]
    return {
        **asdict(cell),
        "layout": {side: key[1] for side, key in best.items()},
        "times": {side: times[key].figures() for side, key in best.items()},
        "per_second": {side: cell.batch / times[key].median for side, key in best.items()},
        "ratio": {side: times[key].over(base).figures() for side, key in best.items()},
        "peak": {side: peak(calls[key], cell.device) for side, key in best.items()},
        "stored": {side: sizes[side] for side in best},
        "layouts": {" ".join(key): t.figures() for key, t in times.items()},
        "lost": {" ".join(key): t for key, t in trials.items() if key not in stay},
        "refused": refused,
    }


def _calls(cell: Cell) -> tuple[dict[tuple[str, str], Callable[[], object]], dict[str, int]]:
    """What to time by side and layout, and the bytes of each side's model."""
    models = {"static": static(cell.network, cell.stem)}
    models["engine"] = dynamic(cell.network, cell.operator, cell.stem, **cell.options)
    if "timm" in cell.against and cell.operator == "condconv" and cell.network != FCN:
        models["timm"] = timm_condconv(copy.deepcopy(models["engine"]))
    layouts = ("NCL",) if cell.network == FCN else ("NCHW", "NHWC")
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for side, model in models.items():
        for layout in layouts:
            # The last layout takes the model itself.
            own = copy.deepcopy(model) if layout != layouts[-1] else model
            memory = torch.channels_last if layout == "NHWC" else torch.contiguous_format
            own = own.train(cell.train).to(cell.device, memory_format=memory)
            calls[side, layout] = _call(cell, own, memory)
            if side == "engine" and "grouped" in cell.against:
                calls["grouped", layout] = _call(cell, own, memory, "grouped")
    calls = {key: calls[key] for side in SIDES for key in calls if key[0] == side}
    sizes = {side: stored(model) for side, model in models.items()}
    return calls, {**sizes, "grouped": sizes["engine"]}


def _call(cell: Cell, model: nn.Module, memory: torch.memory_format, backend: str | None = None):
    """One training step or one prediction."""
    size = shape(cell.network, cell.size, cell.batch)
    inputs = [torch.randn(size).to(cell.device, memory_format=memory) for _ in range(INPUTS)]
    turns = itertools.cycle(inputs)
    labels = torch.randint(10, (cell.batch,), device=cell.device)
    optimizer = OPTIMIZERS[cell.optimizer](model.parameters()) if cell.train and cell.optimizer else None
    dtype = DTYPES[cell.dtype]

    def forward():
        forced = dc.backend(backend) if backend else contextlib.nullcontext()
        with forced, torch.autocast(cell.device, dtype, enabled=dtype != torch.float32):
            return model(next(turns))

    def step() -> None:
        if not cell.train:
            with torch.inference_mode():
                forward()
        else:
            loss(forward(), labels).backward()
            if optimizer:
                optimizer.step()
            model.zero_grad(set_to_none=True)
        if cell.device != "cpu":
            torch.cuda.synchronize()

    return step
