"""Configs and components for mmsegmentation: ``mim train mmsegmentation $(python -m mmseg_configs path NAME)``.

A config imports `mmseg_configs.register`; this module alone needs neither mmseg nor torch.
"""

from __future__ import annotations

from pathlib import Path

from dynconv_plugins.errors import UnknownName

__all__ = ["names", "path"]

_ROOT = Path(__file__).resolve().parent


def names() -> list[str]:
    """Returns the names of the configs, without ``.py``: those of the files whose name holds a hyphen."""
    return sorted(file.stem for file in _ROOT.glob("*-*.py"))


def path(name: str) -> Path:
    """Returns where the config `name` (with or without ``.py``) is installed.

    Raises:
        UnknownName: If there is no such config.
    """
    stem = name.removesuffix(".py")
    if stem not in names():
        raise UnknownName("config", name, names())
    return _ROOT / f"{stem}.py"
