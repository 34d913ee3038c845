"""Checks the fused CUDA kernels against float64, then times them against static, grouped and compiled convolutions.

    python -m benchmarks.gpu [--quick] [--json FILE]
    python -m benchmarks.gpu --interpret [--quick]

Every dtype, layout and K of the table of checks must pass, or no speed-up is printed, but FAILED in its place, and the
exit code is 1. `--interpret` runs small checks in Triton's interpreter on a machine without a GPU, and times nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dynconv_plugins.errors import UserError

from .gpu_checks import LIMITS, Check, checks
from .gpu_timing import BASE, LAYERS, NETWORKS, WAYS, Row, layer, network


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


def cell(row: Row, way: str, sound: bool) -> str:
    """Milliseconds (quartiles), the ratio to static and peak memory; of a kernel whose checks failed, nothing."""
    if way.startswith("fused") and not sound:
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


def report(results: Sequence[Check], rows: Sequence[Row], console: Console) -> int:
    """Prints the tables and returns the exit code: 1 if any check failed."""
    failed = [result for result in results if not result.passed]
    console.print(check_table(results))
    if rows:
        console.print(time_table(rows, sound=not failed))
    if failed:
        console.print(f"FAILED: {len(failed)} of {len(results)} checks; no speed-up of the fused kernels is shown")
    else:
        console.print(f"all {len(results)} checks passed")
    return int(bool(failed))


def measure(quick: bool, batch: int) -> list[Row]:
    """Everything that is timed; needs a CUDA device."""
    rounds = 10 if quick else 50
    cells = [(c, s, k, train) for k in (1, 4) for c, s in (LAYERS[:4] if quick else LAYERS) for train in (False, True)]
    progress = track(cells, description="layers", console=Console(stderr=True))
    rows = [layer(c, s, k, batch, train, rounds) for c, s, k, train in progress]
    return rows + [network(name, batch, 224, rounds) for name in NETWORKS]


def run(args: argparse.Namespace, console: Console) -> int:
    """What `main` does once its arguments are read."""
    if args.interpret:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        raise UserError("no CUDA device here; --interpret checks the kernels without one, and times nothing")
    device = "cpu" if args.interpret else "cuda"
    machine = "Triton's interpreter" if args.interpret else torch.cuda.get_device_name()
    results = list(track(checks(device, args.quick, args.interpret), "checks", console=Console(stderr=True)))
    rows = [] if args.interpret else measure(args.quick, args.batch)
    console.print(f"{machine}, torch {torch.__version__}" + (f", times at batch {args.batch}" if rows else ""))
    code = report(results, rows, console)
    if args.json:
        passed = [asdict(result) | {"passed": result.passed} for result in results]
        # A file must not hold what the table refuses to show.
        times = [asdict(row) for row in rows] if code == 0 else []
        args.json.write_text(json.dumps({"machine": machine, "checks": passed, "rows": times}, indent=1))
    return code


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer checks, shapes and rounds")
    parser.add_argument("--interpret", action="store_true", help="check in Triton's interpreter, without a GPU")
    parser.add_argument("--batch", type=int, default=256, help="of what is timed")
    parser.add_argument("--json", type=Path, help="also write all checks and times here")
    try:
        return run(parser.parse_args(argv), Console(width=200))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
