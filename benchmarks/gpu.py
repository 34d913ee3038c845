"""Checks the fused CUDA kernels against float64, then times them against static, grouped and compiled convolutions.

    python -m benchmarks.gpu [--quick] [--json FILE]
    python -m benchmarks.gpu --interpret [--quick]

Every dtype, layout and K of the table of checks must pass, or the fused kernels are not timed, FAILED stands in their
place, and the exit code is 1. The checks are printed and written before anything is timed, and each time once there.
`--interpret` runs small checks in Triton's interpreter on a machine without a GPU, and times nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dynconv_plugins.errors import UserError, run_cli
from dynconv_plugins.writing import write_json

from .checks import check_files, check_positive
from .gpu_checks import LIMITS, Check, checks
from .gpu_timing import BASE, KERNELS, LAYERS, NETWORKS, QUICK, WAYS, Row, layer, network


def check_table(results: Sequence[Check]) -> Table:
    """Every check, with its worst tensor."""
    table = Table(title="fused against the reference in float64: output and every gradient")
    for column in ("shape", "K", "dtype", "layout", "worst", "error", "limit", ""):
        table.add_column(column, justify="right" if column in ("K", "error", "limit") else "left")
    for result in results:
        worst, error = (result.worst, f"{result.errors[result.worst]:.1e}") if result.errors else (result.problem, "-")
        verdict = "PASS" if result.passed else "FAIL"
        limit = f"{LIMITS[result.dtype]:.1e}"
        table.add_row(result.shape, str(result.kernels), result.dtype, result.layout, worst, error, limit, verdict)
    return table


def fused(way: str) -> bool:
    """Whether a way of `WAYS` runs the kernels that are checked."""
    return WAYS[way][0] == "fused"


def cell(row: Row, way: str, sound: bool) -> str:
    """Milliseconds (quartiles), the ratio to static and peak memory; of a kernel whose checks failed, nothing."""
    if fused(way) and not sound:
        return "FAILED"
    if way not in row.times:
        return row.failures.get(way, "-")
    middle, low, high = row.times[way]
    ratio = f" = {middle / row.times[BASE][0]:.2f}x" if way != BASE and BASE in row.times else ""
    return f"{middle:.2f} ms ({low:.2f}-{high:.2f}){ratio}, {row.memory[way]:.0f} MiB"


def time_table(rows: Sequence[Row], sound: bool) -> Table:
    """What was timed, a column a way."""
    table = Table(title="medians (quartiles) = ratio to static, peak memory; bf16, channels last")
    for column in ("what", "pass", *WAYS):
        table.add_column(column)
    for row in rows:
        table.add_row(row.what, row.run, *(cell(row, way, sound) for way in WAYS))
    return table


def verdict(results: Sequence[Check], console: Console) -> bool:
    """Prints the table of checks and whether all passed, which it returns."""
    failed = [result for result in results if not result.passed]
    console.print(check_table(results))
    if failed:
        console.print(f"FAILED: {len(failed)} of {len(results)} checks; the fused kernels are not timed")
    else:
        console.print(f"all {len(results)} checks passed")
    return not failed


def measure(quick: bool, batch: int, sound: bool) -> Iterator[Row]:
    """Everything that is timed, a row at a time; the fused kernels only if they are `sound`. Needs a CUDA device."""
    ways = [way for way in WAYS if sound or not fused(way)]
    rounds = 10 if quick else 50
    layers = QUICK if quick else LAYERS
    cells = [(c, s, k, batch, train, rounds, ways) for k in KERNELS for c, s in layers for train in (False, True)]
    for args in track(cells, description="layers", console=Console(stderr=True)):
        yield layer(*args)
    for name in track(NETWORKS, description="networks", console=Console(stderr=True)):
        yield network(name, batch, 224, rounds, ways)


def run(args: argparse.Namespace, console: Console) -> int:
    """What `main` does once its arguments are read."""
    check_positive(batch=args.batch)
    check_files(args.json)
    if args.interpret:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        raise UserError("no CUDA device here; --interpret checks the kernels without one, and times nothing")
    device = "cpu" if args.interpret else "cuda"
    page = {"machine": "Triton's interpreter" if args.interpret else torch.cuda.get_device_name(), "rows": []}

    def save() -> None:
        if args.json:
            write_json(args.json, page)

    todo = checks(device, args.quick, args.interpret, args.batch)
    results = list(track(todo, "checks", console=Console(stderr=True)))
    console.print(f"{page['machine']}, torch {torch.__version__}")
    sound = verdict(results, console)
    page["checks"] = [asdict(result) | {"passed": result.passed} for result in results]
    save()
    rows: list[Row] = []
    try:
        for row in [] if args.interpret else measure(args.quick, args.batch, sound):
            rows.append(row)
            page["rows"].append(asdict(row))
            save()
    finally:  # Who interrupts it sees what there is.
        if rows:
            console.print(time_table(rows, sound))
            console.print(f"batch {args.batch}")
    return int(not sound)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer checks, shapes and rounds")
    parser.add_argument("--interpret", action="store_true", help="check in Triton's interpreter, without a GPU")
    parser.add_argument("--batch", type=int, default=256, help="of what is timed")
    parser.add_argument("--json", type=Path, help="also write all checks and times here")
    return run(parser.parse_args(argv), Console(width=200))


if __name__ == "__main__":
    run_cli(main)
