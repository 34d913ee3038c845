"""The command lines behind the numbers, as a person would type them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..study.provenance import shown
from .records import Cell, Task


def commands(task: Task) -> list[tuple[str, str]]:
    """A model and the command line of its first run; its other runs differ by seed or fold alone."""
    made = []
    for model in task.ordered():
        cell = next((c for c in model.cells.values() if c.record.get("command")), None)
        if cell is not None:
            made.append((task.name_of(model), command(cell)))
    return made


def command(cell: Cell) -> str:
    """A cell's command; what lies in the study's folder is named from there, wherever that is, and data elsewhere as
    what ``DYNCONV_DATA`` names."""
    root = Path(cell.folder).parents[2]
    text = shown(_plain(cell.record)).replace(str(root.resolve()), str(root) if not root.is_absolute() else root.name)
    data = Path((cell.record.get("data") or {}).get("path") or "")
    text = text.replace(str(data.parent), "$DYNCONV_DATA") if data.is_absolute() and str(data) in text else text
    return re.sub(r"'(\$DYNCONV_DATA[\w./-]*)'", r"\1", text)  # an archive's; a shell takes no variable in quotes


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    words = [str(word) for word in record["command"]]
    return {**record, "command": words}
