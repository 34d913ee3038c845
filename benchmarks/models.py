"""Times whole networks against their static twins: dynamic, as published (`grouped`), and with timm's own CondConv.

    python -m benchmarks.models --json models.json --plot models.png
    python -m benchmarks.models --sweep --json sweep.json --plot sweep.png

A cell (network, size, operator, pass) runs in a process of its own, where all sides take turns call by call. Each is
measured in both memory layouts and stands with its faster one. Attention heads are part of the networks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError, run_cli
from dynconv_plugins.writing import write_json

from . import growth, isolated
from .cell import DTYPES, LEAST, OPTIMIZERS, Cell, measure
from .checks import check_files
from .networks import FCN, STEMS, check_network
from .plots import draw
from .record import machine
from .tables import NOTE, missing, table

NETWORKS = ("resnet18", "resnet50", "mobilenetv2_100", FCN)
OPERATORS = ("odconv", "odconv4x", "dyconv", "condconv")
PASSES = ("train", "inference")
SMALL = 128  # below it images take the small stem, unless --stem says otherwise
COST = f"""A cell takes --seconds, but at least {LEAST} rounds and two calls before them of everything in it. The full
table is 64 cells; on two cores batch 32 takes hours, most of them in `grouped` (which is up to 60 times slower than the
static network): start with --networks resnet18, or leave it out with --against. The time left is printed after each
cell, and --json is complete up to there."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description=" ".join(__doc__.splitlines()[:1]), epilog=COST
    )
    add = parser.add_argument
    add("--networks", nargs="+", metavar="NAME", help=f"default: {' '.join(NETWORKS)}; --sweep: resnet18")
    add("--operators", nargs="+", metavar="NAME", help=f"default: {' '.join(OPERATORS)}; --sweep: odconv")
    add("--sizes", type=_positive, nargs="+", help="pixels; default: 64 224; --sweep: 64")
    add("--lengths", type=_positive, nargs="+", help=f"of the series of {FCN}; default: 176 2000")
    add("--stem", choices=STEMS, help=f"default: small below {SMALL} px (stride 1, no pooling), else imagenet")
    add("--batch", type=_positive, default=32)
    add("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    add("--against", nargs="*", choices=("grouped", "timm"), help="default: both; --sweep: none")
    add("--optimizer", choices=OPTIMIZERS, help="adds its step to the training step")
    add("--seconds", type=float, default=10.0, help="for the rounds of a cell")
    add("--threads", type=_positive, default=torch.get_num_threads())
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dtype", choices=DTYPES, default="float32", help="of autocast")
    add("--sweep", action="store_true", help="how cost grows with the batch, K and the resolution")
    for name in ("batches", "kernels", "resolutions"):
        values = getattr(growth, name.upper())
        add(f"--{name}", type=_positive, nargs="*", default=values, help=f"of --sweep; default: {_list(values)}")
    add("--json", type=Path, help="all figures, written anew after each cell")
    add("--plot", type=Path, metavar="FILE.png")
    return parser


def cells(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Cell]]:
    """The cells, and what their rows say beside them."""
    sizes, lengths = args.sizes or [64, 224], args.lengths or [176, 2000]
    for network in args.networks or NETWORKS:
        for size in lengths if network == FCN else sizes:
            for operator in args.operators or OPERATORS:
                for cell in _passes(args, network, operator, size):
                    yield {}, cell


def sweep(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Cell]]:
    """The cells of ``--sweep``."""
    (network, *more), (operator, *others) = args.networks or ["resnet18"], args.operators or ["odconv"]
    if more or others or network == FCN or len(args.sizes or []) > 1:
        raise UserError("--sweep takes one network of images, one operator and one size")
    for start in _passes(args, network, operator, (args.sizes or [64])[0]):
        for axis, value, cell in growth.cells(start, args.batches, args.kernels, args.resolutions):
            yield {"axis": axis, "value": value}, cell


def _passes(args: argparse.Namespace, network: str, operator: str, size: int) -> Iterator[Cell]:
    against = args.against if args.against is not None else [] if args.sweep else ["grouped", "timm"]
    for name in args.passes:
        yield Cell(
            network=network,
            size=size,
            operator=operator,
            train=name == "train",
            batch=args.batch,
            stem=args.stem or ("small" if size < SMALL else "imagenet"),
            against=tuple(against),
            optimizer=args.optimizer,
            seconds=args.seconds,
            threads=args.threads,
            device=args.device,
            dtype=args.dtype,
        )


def row(cell: Cell) -> dict[str, Any]:
    """A cell's figures, or why there are none; where a comparison ends the process, the rest without it."""
    preload = ("benchmarks.cell", "timm_models", *(["tsai_models.archs"] if cell.network == FCN else []))
    try:
        return isolated.call(measure, cell, preload=preload)
    except isolated.Failed as e:
        if not cell.against:
            return {**asdict(cell), "failed": str(e)}
        found = row(replace(cell, against=()))
        return found if "failed" in found else {**found, "refused": dict.fromkeys(cell.against, str(e))}


def check(args: argparse.Namespace) -> None:
    """Raises a `UserError` for what no cell could run with, before the first one runs."""
    for name in args.operators or ():
        dc.registry.get(name)
    for name in args.networks or ():
        check_network(name)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here")
    if not args.seconds >= 0:
        raise UserError(f"--seconds {args.seconds:g} must be 0 or more")
    check_files(args.json, args.plot)
    if args.plot is not None and args.plot.suffix != ".png":
        raise UserError(f"--plot {args.plot}: the name must end in .png")


def main() -> int:
    args = arguments().parse_args()
    check(args)
    todo = list(sweep(args) if args.sweep else cells(args))
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{args.threads} threads"
    settings = {"machine": f"{machine()}, {device}, {args.dtype}", "sweep": args.sweep, "batch": args.batch}
    rows: list[dict[str, Any]] = []
    console, log = Console(width=190), Console(stderr=True, highlight=False, soft_wrap=True)
    start = time.monotonic()
    for done, (extra, cell) in enumerate(todo, 1):
        rows.append({**extra, **row(cell)})
        if args.json:
            write_json(args.json, {**settings, "rows": rows})
        spent = time.monotonic() - start
        result = rows[-1].get("failed") or f"{rows[-1]['ratio']['engine']['median']:.2f}x static"
        where = " ".join(map(str, extra.values()))
        left = f"{spent / 60:.1f} min, about {spent / done * (len(todo) - done) / 60:.0f} left"
        log.print(f"[{done}/{len(todo)}] {cell.title} {where}: {result} ({left})", markup=False)
    console.print(table(rows, args.sweep))
    for line in (NOTE, *missing(rows)):
        console.print(line, highlight=False, markup=False)
    console.print(f"{settings['machine']}, batch {args.batch}", highlight=False)
    if args.plot:
        draw(rows, args.plot, args.sweep)
    failed = sum("failed" in r for r in rows)
    if failed:
        console.print(f"{failed} of {len(rows)} cells failed", highlight=False)
    return int(failed > 0)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _list(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values))


if __name__ == "__main__":
    run_cli(main)
