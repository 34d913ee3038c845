"""Finds the data sets below one folder, by the names of their official layouts."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError

VARIABLE = "DYNCONV_DATA"
LAYOUTS = "tiny-imagenet-200/train, VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt, UCR/<Name>/<Name>_TRAIN.tsv"


def find(root: str | os.PathLike | None = None) -> dict[str, Path]:
    """Looks for the data sets that the demo, the tests and the examples can use.

    Args:
        root: Where to look. Default: the environment variable ``DYNCONV_DATA``; unset or empty means no data.

    Returns:
        The folders found, under some of the keys ``tiny-imagenet``, ``voc2012`` and ``ucr``: what ``prepare`` of
        the module of that name, and ``ucr.load``, take.

    Raises:
        UserError: If the folder is missing or holds none of them.
    """
    said_by = f"{VARIABLE}=" if root is None else ""
    root = os.environ.get(VARIABLE, "") if root is None else root
    if not str(root):
        return {}
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"{said_by}{root} is not a folder; expected one with {LAYOUTS}")

    found = {}
    for tiny in (root / "tiny-imagenet-200", root / "tiny-imagenet-mini", root):
        if (tiny / "train").is_dir() and (tiny / "val").is_dir():
            found["tiny-imagenet"] = tiny
            break
    voc = root / "VOCdevkit" / "VOC2012"
    if (voc / "ImageSets" / "Segmentation" / "train.txt").is_file():
        found["voc2012"] = voc
    for ucr in (root / "UCR", root / "ucr"):
        if any(ucr.glob("*/*_TRAIN.ts*")):
            found["ucr"] = ucr
            break
    if not found:
        raise UserError(f"{said_by}{root} holds none of {LAYOUTS}; see 'dynconv data --help'")
    return found
