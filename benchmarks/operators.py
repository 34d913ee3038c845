"""Times one dynamic convolution, backend by backend, against the static convolution and the grouped form.

    python -m benchmarks.operators [--kernels 1 4] [--seconds 2] [--json FILE] [--check]

Each row is one of ResNet-18's 3x3 shapes at 64 or 224 px. `choice` is what the engine picks by itself. The table says
where another choice than `grouped` loses to it by more than 5%; with ``--check`` the exit code is then 1.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table

import dynconv_plugins as dc
from dynconv_plugins.backends import BACKENDS, choose_backend, name_of
from dynconv_plugins.errors import run_cli
from dynconv_plugins.problem import Problem
from dynconv_plugins.writing import write_json

from .checks import check_files, check_positive
from .timing import compare, warm_up

SHAPES = [(64, 16), (128, 8), (256, 4), (512, 2), (64, 56), (128, 28), (256, 14), (512, 7)]
TOLERANCE = 1.05


def inputs(channels: int, size: int, kernels: int, batch: int, train: bool, dims: int = 2):
    """Random x, weight and all four attention factors of an ODConv."""
    taps = (3,) * dims
    x = torch.randn(batch, channels, *(size,) * dims)
    weight = torch.randn(kernels, channels, channels, *taps) / (9 * channels) ** 0.5
    attention = dc.Attention(
        kernel=torch.rand(batch, kernels).softmax(1) if kernels > 1 else None,
        spatial=torch.rand(batch, *taps),
        input=torch.rand(batch, channels),
        output=torch.rand(batch, channels),
    )
    tensors = [x, weight, *(t for t in attention if t is not None)]
    for tensor in tensors:
        tensor.requires_grad_(train)
    return x, weight, attention


def step(forward: Callable[[], torch.Tensor], leaves: list[torch.Tensor], train: bool) -> Callable[[], object]:
    """A call to time: forward alone, or forward and all gradients."""
    if not train:
        return torch.no_grad()(forward)

    def both():
        y = forward()
        return torch.autograd.grad(y, leaves, torch.ones_like(y))

    return both


def measure(channels: int, size: int, kernels: int, batch: int, train: bool, seconds: float) -> dict:
    """One row: by name, seconds and their ratios to the faster static layout's, and how the engine chose.

    Ratios are of the same round; `choice_over_grouped` is the ratio of these two. Each has its median and quartiles.
    """
    x, weight, attention = inputs(channels, size, kernels, batch, train)
    leaves = [x, weight, *(t for t in attention if t is not None)]
    functions = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        xs = x.detach().to(memory_format=layout).requires_grad_(train)
        ws = weight[0].detach().to(memory_format=layout).requires_grad_(train)
        name = "static" + (" channels_last" if layout is torch.channels_last else "")
        functions[name] = step(lambda xs=xs, ws=ws: F.conv2d(xs, ws, padding=1), [xs, ws], train)
    with torch.set_grad_enabled(train):
        problem = Problem.of(x, weight, attention, 1, 1, 1, 1)
    for name, backend in BACKENDS.items():
        if name == "reference" or backend.supports(problem):
            continue

        def forward(name=name):
            with dc.backend(name):
                return dc.dynamic_conv(x, weight, attention, padding=1)

        functions[name] = step(forward, leaves, train)
    functions["choice"] = step(lambda: dc.dynamic_conv(x, weight, attention, padding=1), leaves, train)
    times = compare(functions, seconds)
    base = min(("static", "static channels_last"), key=lambda n: times[n].median)
    return {
        "channels": channels,
        "size": size,
        "kernels": kernels,
        "batch": batch,
        "train": train,
        "choice": name_of(choose_backend(problem)),
        "static_layout": base,
        "times": {name: timing.figures() for name, timing in times.items()},
        "ratio": {name: timing.over(times[base]).figures() for name, timing in times.items()},
        "choice_over_grouped": times["choice"].over(times["grouped"]).figures(),
    }


def slower(row: dict) -> bool:
    """Whether the engine chose worse than `grouped`. Where it chose `grouped` the ratio of the two is the noise."""
    return row["choice"] != "grouped" and row["choice_over_grouped"]["median"] > TOLERANCE


def table(rows: list[dict]) -> Table:
    """The rows as a table of ratios to the faster static layout."""
    names = [n for n in BACKENDS if n != "reference"]
    out = Table(title="seconds over the static convolution's in the same round, medians (quartiles of the choice)")
    for column in ("shape", "K", "pass", "static ms", *names, "choice", "over grouped", ""):
        out.add_column(column, justify="left" if column in ("shape", "pass", "choice", "") else "right")
    for row in rows:
        base, choice = row["static_layout"], row["ratio"]["choice"]
        out.add_row(
            f"{row['channels']} @ {row['size']}",
            str(row["kernels"]),
            "train" if row["train"] else "forward",
            f"{row['times'][base]['median'] * 1e3:.2f} {'NHWC' if 'last' in base else 'NCHW'}",
            *(f"{row['ratio'][n]['median']:.2f}" if n in row["ratio"] else "-" for n in names),
            f"{choice['median']:.2f} ({choice['low']:.2f}-{choice['high']:.2f}) {row['choice']}",
            f"{row['choice_over_grouped']['median']:.2f}",
            "SLOWER" if slower(row) else "",
        )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operators", description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", type=int, nargs="+", default=[1, 4], help="K of the dynamic convolution")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    parser.add_argument("--json", type=Path, help="also write all times here")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a choice is slower than grouped")
    args = parser.parse_args()
    check_positive(kernels=args.kernels, batch=args.batch)
    check_files(args.json)
    torch.manual_seed(0)
    console = Console(width=170)
    warm_up()
    cells = [(c, s, k, train) for k in args.kernels for c, s in SHAPES for train in (False, True)]
    progress = track(cells, console=Console(stderr=True))
    rows = [measure(c, s, k, args.batch, train, args.seconds) for c, s, k, train in progress]
    console.print(table(rows))
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    console.print(f"{machine}, batch {args.batch}, fp32")
    if args.json:
        write_json(args.json, {"machine": machine, "rows": rows})
    lost = sum(slower(row) for row in rows)
    same = [row["choice_over_grouped"]["median"] for row in rows if row["choice"] == "grouped"]
    noise = f" (where it chose grouped itself, the two differ by {min(same):.2f} to {max(same):.2f})" if same else ""
    console.print(f"{lost} of {len(rows)} choices slower than grouped by more than {TOLERANCE - 1:.0%}{noise}")
    return int(args.check and lost > 0)


if __name__ == "__main__":
    run_cli(main)
