"""Command line: ``python -m timm_models {run,train,list} ...``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dynconv_plugins.errors import UserError, run_cli

_COMMANDS = """commands:
  run SCRIPT.py ARGS...   run a script of timm (train, validate, benchmark, onnx_export, ...) with these models
  train DATA ARGS...      train with timm's parts, no checkout of timm needed; train --help lists the flags
  list [PATTERN...]       names of these models, or those that match, e.g. odconv or 'resnet*'
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m timm_models", epilog=_COMMANDS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "train", "list"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...")
    return parser


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(argv)
    if options.command == "train":
        from .train.cli import main as train

        return train(options.arguments)
    if options.arguments[:1] in (["-h"], ["--help"]):
        _parser().print_help()
        return None
    if options.command == "run":
        from .run import run_script

        if not options.arguments:
            raise UserError("run needs a script: python -m timm_models run SCRIPT.py ARGS...")
        return run_script(options.arguments[0], options.arguments[1:])
    return _list(options.arguments)


def _list(patterns: Sequence[str]) -> int | None:
    from . import list_models

    asked = [pattern if set(pattern) & set("*?[") else f"*{pattern}*" for pattern in patterns]
    names = sorted({name for pattern in asked or ("*",) for name in list_models(pattern)})
    if not names:
        raise UserError(f"no model here matches {' '.join(patterns)}: 'python -m timm_models list' prints all")
    sys.stdout.writelines(f"{name}\n" for name in names)
    return None


if __name__ == "__main__":
    run_cli(main)
