"""What the commands refuse before they measure anything."""

from __future__ import annotations

from pathlib import Path

from dynconv_plugins.errors import UserError


def check_files(*paths: Path | None) -> None:
    """Raises a `UserError` for a file that cannot be written: better now than after hours."""
    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: there is no folder {path.parent}")
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder, not a file")


def check_positive(**values: int | list[int]) -> None:
    """Raises a `UserError` for an argument that is not 1 or more, or has such a value; there is one at least."""
    for name, value in values.items():
        least = min(value) if isinstance(value, list) else value
        if least < 1:
            raise UserError(f"--{name} must be 1 or more, not {least}")
