"""Runs any of timm's scripts, unmodified, with the models of this package registered."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import timm

from dynconv_plugins.errors import UnknownName, UserError

_TIMM_UNKNOWN = "Unknown model ("


def run_script(script: str, arguments: Sequence[str] = ()) -> None:
    """Runs `script` as ``python script arguments...`` would, in this process.

    Args:
        script: Path of a Python file, e.g. timm's ``train.py``; its folder comes first on ``sys.path``.
        arguments: Its command line.

    Raises:
        UserError: If there is no such file, or timm does not know the model it asks for.
    """
    path = Path(script)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{script} {what}: give the path of a script, such as train.py of a checkout of timm")
    argv, paths = sys.argv, sys.path
    sys.argv = [script, *arguments]
    sys.path = [str(path.resolve().parent), *paths]
    try:
        runpy.run_path(script, run_name="__main__")
    except RuntimeError as e:
        if not str(e).startswith(_TIMM_UNKNOWN):
            raise
        name = str(e).removeprefix(_TIMM_UNKNOWN).removesuffix(")")
        raise UnknownName("model", name, timm.list_models()) from e
    finally:
        sys.argv, sys.path = argv, paths
