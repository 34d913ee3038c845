"""Times the backends on this machine, and fits the cost model that chooses among them.

    python -m benchmarks.calibrate [--write costs.json] [--json times.json]
    DYNCONV_COSTS=costs.json python -m ...

It says what the fitted constants of dynconv_plugins/backends/costs.py are, which choices they would change, and how
much slower than the fastest backend the chosen ones are: before and after, on the shapes of the fit and on others. The
engine takes the file when the environment variable DYNCONV_COSTS names it; nothing changes otherwise. Run it on a
quiet machine, with the number of threads (OMP_NUM_THREADS) that networks will run with.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import dynconv_plugins as dc
from dynconv_plugins.backends import BACKENDS, costs
from dynconv_plugins.errors import UserError, run_cli
from dynconv_plugins.problem import Problem
from dynconv_plugins.writing import write_json

from .checks import check_files, check_positive
from .cost_fit import THRESHOLDS, Measured, chosen, fit, summary
from .operators import step
from .record import machine
from .timing import compare, warm_up

SKIP = 30  # estimates so many times the best one's are not worth the time
ROUNDS = 3


@dataclass(frozen=True)
class Shape:
    """A layer, with padding that keeps the size; `sole` is without all attention but the one that mixes kernels."""

    c_in: int
    c_out: int
    size: tuple[int, ...]
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    sole: bool = False

    def __str__(self) -> str:
        channels = str(self.c_in) if self.c_in == self.c_out else f"{self.c_in}>{self.c_out}"
        text = f"{channels} @ {'x'.join(map(str, self.size))}, {'x'.join([str(self.kernel)] * len(self.size))}"
        extra = (f"/{self.stride}" * (self.stride > 1), " depthwise" * (self.groups > 1), " mixed only" * self.sole)
        return text + "".join(extra)


def square(c_in: int, c_out: int, size: int, *args: int, **kwargs) -> Shape:
    """A shape in two dimensions."""
    return Shape(c_in, c_out, (size, size), *args, **kwargs)


# Layers of ResNets at 64 and 224 px, of MobileNets, and of networks for series.
SHAPES = [
    *(square(c, c, s) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7), (64, 16), (128, 8), (256, 4), (512, 2))),
    *(square(*cs, 3, 2) for cs in ((64, 128, 56), (256, 512, 14), (128, 256, 8))),
    *(square(*cs, 1) for cs in ((64, 256, 56), (512, 128, 28), (256, 1024, 14), (2048, 512, 7), (512, 512, 4))),
    *(square(c, c, s, 3, 1, c) for c, s in ((96, 56), (384, 14), (960, 7))),
    *(
        Shape(*cs, (n,), k)
        for *cs, n, k in ((64, 128, 176, 7), (128, 256, 176, 5), (256, 128, 176, 3), (64, 64, 1024, 3))
    ),
    *(square(c, c, s, sole=True) for c, s in ((64, 28), (256, 14), (512, 4))),
]
QUICK = [
    *(square(c, c, s) for c, s in ((32, 16), (64, 8), (128, 4))),
    *(square(32, 64, 8, k, s) for k, s in ((1, 1), (3, 2))),
    *(Shape(32, 32, (n,), k) for n, k in ((64, 5), (32, 3))),
    square(64, 64, 8, 3, 1, 64),
]
HOLD = 5  # every HOLD-th shape is left out of the fit


def tensors(shape: Shape, kernels: int, batch: int) -> tuple[torch.Tensor, torch.Tensor, dc.Attention]:
    """Random x, weight and attention."""
    taps = (shape.kernel,) * len(shape.size)
    fan_in = shape.c_in // shape.groups * math.prod(taps)
    rest = {} if shape.sole else {"spatial": torch.rand(batch, *taps), "input": torch.rand(batch, shape.c_in)}
    if rest:
        rest["output"] = torch.rand(batch, shape.c_out)
    mix = torch.rand(batch, kernels).softmax(1) if kernels > 1 else None
    x = torch.randn(batch, shape.c_in, *shape.size)
    weight = torch.randn(kernels, shape.c_out, shape.c_in // shape.groups, *taps) / fan_in**0.5
    return x, weight, dc.Attention(kernel=mix, **rest)


def measure(shape: Shape, kernels: int, batch: int, train: bool, seconds: float, also: str | None = None) -> Measured:
    """Times all backends whose estimate is near the best one's, and `also`."""
    x, weight, attention = tensors(shape, kernels, batch)
    leaves = [x, weight, *(t for t in attention if t is not None)]
    for leaf in leaves:
        leaf.requires_grad_(train)
    geometry = {"stride": shape.stride, "padding": shape.kernel // 2, "dilation": 1, "groups": shape.groups}
    with torch.set_grad_enabled(train):
        problem = Problem.of(x, weight, attention, **geometry)
    estimates = {name: b.cost(problem) for name, b in BACKENDS.items() if b.supports(problem) is None}
    most = SKIP * min(estimates.values())
    functions = {}
    for name in (n for n, estimate in estimates.items() if estimate <= most or n == also):

        def forward(name=name):
            with dc.backend(name):
                return dc.dynamic_conv(x, weight, attention, **geometry)

        functions[name] = step(forward, leaves, train)
    times = compare(functions, seconds, ROUNDS)
    return Measured(problem, {name: t.median for name, t in times.items()})


def cells(args: argparse.Namespace) -> Iterator[tuple[bool, Shape, int, int, bool]]:
    """What to measure; the first value says whether it is held out."""
    for i, shape in enumerate(QUICK if args.quick else SHAPES):
        for kernels in args.kernels:
            if shape.sole and kernels == 1:
                continue  # nothing is dynamic
            for batch in args.batch:
                for train in (False, True):
                    yield i % HOLD == HOLD - 1, shape, kernels, batch, train


def constants_table(now: dict[str, float], fitted: dict[str, float]) -> Table:
    """Constants now and fitted."""
    out = Table(title="constants of the cost model, in seconds; TRAIN are multipliers")
    for column in ("constant", "now", "fitted", "factor"):
        out.add_column(column, justify="left" if column == "constant" else "right")
    for name, value in now.items():
        if name not in THRESHOLDS:
            out.add_row(name, f"{value:.3g}", f"{fitted[name]:.3g}", f"{fitted[name] / value:.2f}")
    return out


def changes_table(rows: list[dict]) -> Table:
    """The problems for which another backend would be chosen."""
    changed = [row for row in rows if row["now"] != row["fitted"]]
    out = Table(title=f"choices that would change: {len(changed)} of {len(rows)} (medians, ms)")
    for column in ("shape", "K", "batch", "pass", "now", "ms", "fitted", "ms", "fastest", "ms", "held out"):
        out.add_column(column, justify="right" if column in ("K", "batch", "ms") else "left", no_wrap=True)
    for row in changed:
        pairs = [(row[side], f"{row['times'][row[side]] * 1e3:.3f}") for side in ("now", "fitted", "fastest")]
        where = (row["shape"], str(row["kernels"]), str(row["batch"]), "train" if row["train"] else "forward")
        out.add_row(*where, *(text for pair in pairs for text in pair), "yes" if row["held_out"] else "")
    return out


def summary_table(lines: list[dict]) -> Table:
    """The summary, a line each."""
    out = Table(title="seconds of the chosen backend over the fastest one's")
    for column in ("shapes", "pass", "constants", "problems", "geometric mean", "worst"):
        out.add_column(column, justify="right" if column in ("problems", "geometric mean", "worst") else "left")
    for line in lines:
        *facts, average, worst = line.values()
        out.add_row(*map(str, facts), f"{average:.3f}", f"{worst:.2f}")
    return out


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--kernels", type=int, nargs="+", default=[1, 4], metavar="K", help="default 1 4")
    add("--batch", type=int, nargs="+", default=[1, 8, 32], metavar="N", help="default 1 8 32")
    add("--seconds", type=float, default=0.3, help=f"for each problem, but at least {ROUNDS} rounds (default 0.3)")
    add("--quick", action="store_true", help="a few small shapes: to see it work, not to fit anything by")
    add("--write", type=Path, metavar="FILE", help="write the fitted constants here, for DYNCONV_COSTS")
    add("--json", type=Path, metavar="FILE", help="also write all times and choices here")
    args = parser.parse_args(words)
    check_positive(kernels=args.kernels, batch=args.batch)
    if not 0 <= args.seconds < math.inf:
        raise UserError(f"--seconds {args.seconds:g} must be 0 or more")
    check_files(args.write, args.json)
    if os.environ.get("DYNCONV_BACKEND"):
        raise UserError("DYNCONV_BACKEND is set, so nothing is chosen: unset it")
    return args


def main() -> None:
    args = arguments()
    torch.manual_seed(0)
    console, log = Console(width=150), Console(stderr=True, highlight=False)
    todo = list(cells(args))
    warm_up(min(3.0, 10 * args.seconds))
    rows, start = [], time.monotonic()
    with log.status("timing") as status:
        for i, (_, shape, *case) in enumerate(todo):
            status.update(f"[{i}/{len(todo)}] {shape}, {time.monotonic() - start:.0f} s")
            rows.append(measure(shape, *case, args.seconds))
        now = costs.constants()
        held = [cell[0] for cell in todo]
        fitted = fit(row for row, h in zip(rows, held, strict=True) if not h)
        # A backend that looked too slow to be timed may be the choice now: then the problem is timed once more.
        for i, (_, shape, *case) in enumerate(todo):
            choice = chosen(rows[i].problem, fitted)
            if choice not in rows[i].times:
                status.update(f"once more with {choice}: {shape}")
                rows[i] = measure(shape, *case, args.seconds, choice)
    report = [
        {
            "shape": str(shape),
            **dict(zip(("kernels", "batch", "train"), case, strict=True)),
            "held_out": held_out,
            "now": chosen(row.problem, now),
            "fitted": chosen(row.problem, fitted),
            "fastest": row.fastest,
            "times": dict(row.times),
        }
        for (held_out, shape, *case), row in zip(todo, rows, strict=True)
    ]
    lines = summary(rows, held, now, fitted)
    for table in (constants_table(now, fitted), changes_table(report), summary_table(lines)):
        console.print(table)
    about = f"{machine()}, {torch.get_num_threads()} threads, fp32, {time.monotonic() - start:.0f} s"
    if path := os.environ.get("DYNCONV_COSTS"):
        about += f"; the constants now are those of {path}"
    console.print(about, highlight=False, markup=False, soft_wrap=True)
    if args.json:
        page = {"machine": about, "now": now, "fitted": fitted, "summary": lines, "problems": report}
        write_json(args.json, page)
    if args.write:
        write_json(args.write, {n: v for n, v in fitted.items() if n not in THRESHOLDS})
        console.print(
            f"DYNCONV_COSTS={args.write} makes the engine use these constants", highlight=False, soft_wrap=True
        )


if __name__ == "__main__":
    run_cli(main)
