"""The ``dynconv`` command: one subcommand a module, imported only when it is the one asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from . import __version__
from .errors import run_cli

# Name -> (module, help). The module offers add_parser(subparsers), which adds the parser of that name and sets the
# default `run`: a function of the parsed arguments that returns an exit code or None.
COMMANDS = {
    "data": ("dynconv_plugins.datasets.cli", "make or prepare data sets"),
    "convert": ("dynconv_plugins.checkpoints.cli", "turn weights from elsewhere into a model's"),
    "demo": ("dynconv_plugins.demo.cli", "train static and dynamic networks with all three hosts"),
    "study": ("dynconv_plugins.study.cli", "run a plan: tasks x models x seeds, each by its host's own trainer"),
    "report": ("dynconv_plugins.report.cli", "draw a study's page, tables and figures"),
    "explain": ("dynconv_plugins.inspection.explain_cli", "show what every layer's attention did for one input"),
    "models": ("dynconv_plugins.inspection.models_cli", "list the registered models with their costs"),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command and exits; ``argv`` defaults to the process's arguments."""
    run_cli(lambda: run(sys.argv[1:] if argv is None else list(argv)))


def run(argv: list[str]) -> int | None:
    """Runs the command and returns its exit code.

    Raises:
        UserError: What the command reports as one line.
        SystemExit: For ``--help`` and arguments that do not parse.
    """
    parser = argparse.ArgumentParser(prog="dynconv", description="Dynamic convolutions for timm, mmseg and tsai.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    asked = next((a for a in argv if not a.startswith("-")), None)
    for name, (module, text) in COMMANDS.items():
        if name == asked:
            importlib.import_module(module).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=text)
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help()
        return 2
    return args.run(args)


if __name__ == "__main__":
    main()
