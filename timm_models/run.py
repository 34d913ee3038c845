"""Runs any of timm's scripts, unmodified, with the models of this package registered."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import timm

from dynconv_plugins.errors import UnknownName, UserError


def run_script(script: str, arguments: Sequence[str] = ()) -> None:
    """Runs `script` as ``python script arguments...`` would, in this process.

    Args:
        script: Path of a Python file, e.g. timm's ``train.py``; its folder comes first on ``sys.path``.
        arguments: Its command line.

    Raises:
        UserError: If there is no such file, or timm refuses the model, the checkpoint or the data it asks for.
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
        mistake = as_user_error(e)
        if mistake is None:
            raise
        raise mistake from e
    finally:
        sys.argv, sys.path = argv, paths


def as_user_error(error: RuntimeError) -> UserError | None:
    """Returns the line for what timm and torch raise over a wrong name, checkpoint or folder; ``None`` for the rest."""
    text = str(error)
    if match := re.fullmatch(r"Unknown model \((.*)\)", text):
        return UnknownName("model", match[1], timm.list_models())
    if match := re.match(r"Invalid pretrained tag \((.*)\) for (\S+?)\.?$", text):
        return UserError(f"{match[2]} has no weights with the tag '{match[1]}': give the name without it")
    if match := re.match(r"Error\(s\) in loading state_dict for \w+:\s*(.*)", text):
        first = match[1] if len(match[1]) <= 160 else match[1][:160] + "..."
        return UserError(f"the checkpoint is of another model, or made with other --model-kwargs: {first}")
    if match := re.match(r"No pretrained weights exist for (\S+)\. ", text):
        return UserError(
            f"{match[1]} comes without weights: name trained ones with --checkpoint (train.py: --initial-checkpoint), "
            "or as --model local-dir:FOLDER"
        )
    if match := re.match(r"Found 0 images in subfolders of (\S+)\. ", text):
        return UserError(f"found no images in subfolders of {match[1]}: one folder a class is expected there")
    return None
