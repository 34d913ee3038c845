"""Data sets for the three hosts: the built-in diatoms, and official archives re-organised by links.

Importing this package needs nothing but the standard library; Pillow, NumPy and the hosts are imported by the
modules that use them, and asked for by name when they are missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .locate import find

if TYPE_CHECKING:
    from . import diatoms, tiny_imagenet, ucr, voc2012

__all__ = ["diatoms", "find", "tiny_imagenet", "ucr", "voc2012"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
