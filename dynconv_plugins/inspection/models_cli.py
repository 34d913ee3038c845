"""``dynconv models``: the registered models with what they cost."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError, require
from .catalogue import HOSTS, STATIC, Entry, entries

TIMED = 16  # a network with every operator, and its static twin
EPILOG = f"""\
Multiply-adds are of one sample, a multiply-add counted once; of mmseg's configs they are those of one training crop, of
tsai's architectures of a series of 176 steps. Latency is measured where at most {TIMED} models are left, or with
--latency: median and quartiles of the forward pass on this machine, with its threads (OMP_NUM_THREADS). Counting all
models takes some minutes the first time; counts are kept in ~/.cache/dynconv until a source file or a host changes.
"""


@dataclass
class Row:
    """One model.

    Attributes:
        name, host, operator: See `catalogue.Entry`.
        input_size: With the batch of the latency.
        params: Learned values.
        macs: Multiply-adds of one sample.
        latency_ms: Quartiles, or None.
    """

    name: str
    host: str
    operator: str
    input_size: list[int]
    params: int
    macs: int
    latency_ms: list[float] | None = None


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``models`` to the commands of ``dynconv``."""
    p = subparsers.add_parser("models", help=__doc__, description=__doc__, epilog=EPILOG)
    p.add_argument("pattern", nargs="?", metavar="PATTERN", help="part of the name, or shell-style: 'resnet??_od*'")
    p.add_argument("--operator", metavar="NAME", help="only those with it, or 'static'; tsai's take it as well")
    p.add_argument("--host", choices=HOSTS, help="default: all that are installed")
    p.add_argument("--sort", choices=("name", "params", "macs", "latency"), help="default: by host and name")
    p.add_argument("--max-params", type=_count, metavar="N", help="at most so many, e.g. 20M")
    p.add_argument("--max-macs", type=_count, metavar="N", help="at most so many multiply-adds, e.g. 2G")
    p.add_argument("--input-size", type=_positive, metavar="N", help="side of images in pixels; default: the model's")
    p.add_argument(
        "--batch", type=_positive, default=1, metavar="N", help="samples at once for the latency (default 1)"
    )
    timed = p.add_mutually_exclusive_group()
    timed.add_argument("--latency", action="store_true", help=f"measure it for more than {TIMED} models, too")
    timed.add_argument("--no-latency", action="store_true", help="measure none")
    p.add_argument("--json", action="store_true", help="to standard output, instead of the table")
    p.set_defaults(run=run)


def _count(text: str) -> float:
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        value = float(number) * unit
    except ValueError:
        value = -1
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number like 20M, 1.5G or 300k")
    return value


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Lists models: the filters first, then the counts, then the latency of what is left."""
    require("rich", "study")
    if args.sort == "latency" and args.no_latency:
        raise UserError("--sort latency needs what --no-latency leaves out")
    hosts = HOSTS if args.host is None else (args.host,)
    found = entries(hosts, _say, args.pattern, args.operator, args.input_size)
    rows = _counted(found, args.max_params, args.max_macs, args.batch)
    timed = args.latency or args.sort == "latency" or len(rows) <= TIMED
    if timed and not args.no_latency:
        _timed(rows, found)
    key: dict[str, Callable[[Row], Any]] = {
        "name": lambda row: row.name,
        "params": lambda row: row.params,
        "macs": lambda row: row.macs,
        "latency": lambda row: row.latency_ms[1] if row.latency_ms else math.inf,
    }
    if args.sort:
        rows.sort(key=key[args.sort])
    if args.json:
        import torch

        about = {"batch": args.batch, "threads": torch.get_num_threads(), "models": [asdict(row) for row in rows]}
        print(json.dumps(about, indent=1))
        return 0
    _print(rows)
    if not rows:
        _say("no model fits these filters")
    elif not timed and not args.no_latency:
        _say(f"{len(rows)} models: latency is measured where at most {TIMED} are left, or with --latency")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _counted(found: Sequence[Entry], max_params: float | None, max_macs: float | None, batch: int) -> list[Row]:
    from .ledger import Ledger

    rows, ledger = [], Ledger()
    before = len(ledger.counts)
    try:
        for entry in _progress(found, "counting"):
            size = "x".join(map(str, entry.input_size))
            key = f"{entry.host} {entry.name} {entry.operator} {size}"
            counts = ledger.get(key) or _count_one(entry)
            if counts is None:
                continue
            ledger.put(key, *counts)
            if counts[0] <= (max_params or counts[0]) and counts[1] <= (max_macs or counts[1]):
                rows.append(Row(entry.name, entry.host, entry.operator, [batch, *entry.input_size], *counts))
    finally:  # what an interrupted command has counted is kept as well
        if len(ledger.counts) > before:
            ledger.write()
    return rows


def _count_one(entry: Entry) -> tuple[int, int] | None:
    from .costs import Unfilled, macs, parameters

    with _quiet():
        with Unfilled():
            model = entry.build().eval()
        try:
            return parameters(model), macs(model, (1, *entry.input_size))
        except (RuntimeError, ValueError) as e:  # an input too small for the strides, say
            _say(f"{entry.name} is left out: {str(e).splitlines()[0]}")
            return None


def _timed(rows: Sequence[Row], found: Sequence[Entry]) -> None:
    import torch

    from .costs import latency

    by_name = {entry.name: entry for entry in found}
    for row in _progress(rows, "measuring"):
        with _quiet():
            model = by_name[row.name].build().eval()
        try:
            row.latency_ms = list(latency(model, torch.randn(row.input_size)))
        except (RuntimeError, MemoryError) as e:  # a batch too large for the memory, say
            _say(f"{row.name} is not timed: {(str(e).splitlines() or ['out of memory'])[0]}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The hosts remark on optional parts of theirs that are missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _progress(items: Sequence[Any], what: str):
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)


def _print(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..demo.table import number

    timed = any(row.latency_ms for row in rows)
    table = Table(header_style="bold", padding=(0, 1))
    table.add_column("model", overflow="fold")
    table.add_column("operator")
    for head in ("params", "MAdds", "input"):
        table.add_column(head, justify="right")
    if timed:
        batch = rows[0].input_size[0]
        table.add_column(f"latency, batch {batch}" if batch > 1 else "latency", justify="right")
    for i, row in enumerate(rows):
        cells = [row.name, row.operator if row.operator != STATIC else f"[dim]{STATIC}[/dim]"]
        cells += [number(row.params), number(row.macs), "x".join(map(str, row.input_size[1:]))]
        if timed:
            cells.append("{1:.1f} ms ({0:.1f}-{2:.1f})".format(*row.latency_ms) if row.latency_ms else "-")
        last = i + 1 < len(rows) and rows[i + 1].host != row.host
        table.add_row(*cells, end_section=last)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
