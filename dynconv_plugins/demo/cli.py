"""``dynconv demo``: trains the twins, prints the table, writes the page."""

from __future__ import annotations

import argparse
import signal
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from dynconv_plugins import datasets
from dynconv_plugins.errors import UserError, require

TASKS = ("images", "segmentation", "series")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds ``demo`` to the commands of ``dynconv``."""
    parser = subparsers.add_parser("demo", help=__doc__, description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the demo's arguments to a parser, its own or that of ``dynconv``."""
    from dynconv_plugins.demo.sizes import SIZES

    parser.add_argument("--size", choices=sorted(SIZES), default="default", help="default: 15 minutes on two cores")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="default: runs/demo")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="holds Tiny ImageNet, VOC 2012 or UCR, whichever are there; default $DYNCONV_DATA, else the diatoms",
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all three")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    parser.add_argument("--open", action="store_true", help="open the page in the browser at the end")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dynconv demo", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """Runs the demo and returns its exit code: 1 if a cell failed."""
    for module in ("rich", "matplotlib", "jinja2", "fvcore", "PIL"):
        require(module, extra="all")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file; choose another name")
    if args.data is not None and not args.data.is_dir():
        raise UserError(f"--data {args.data} is not a folder")
    if args.threads is not None and args.threads < 1:
        raise UserError(f"--threads must be at least 1, not {args.threads}")
    found = datasets.find(args.data) if args.data is not None else datasets.find()

    from dynconv_plugins.demo.machine import cores
    from dynconv_plugins.demo.show import Show

    # So that a plain `kill` ends the command that is running as well.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))

    show = Show(found, args.out, args.size, args.tasks, args.threads or cores())
    code = show.run()
    if args.open:
        webbrowser.open((args.out / "index.html").resolve().as_uri())
    return code
