"""The command lines behind the numbers, as a person would type them."""

from __future__ import annotations

import re

from ..study.provenance import shown
from .records import Task


def commands(task: Task) -> list[tuple[str, str]]:
    """A model and the command line of its first run; its other runs differ by seed or fold alone."""
    made = []
    for model in task.ordered():
        cell = next((c for c in model.cells.values() if c.record.get("command")), None)
        if cell is not None:
            # A shell takes no variable in quotes.
            made.append((task.name_of(model), re.sub(r"'(\$DYNCONV_DATA[\w./-]*)'", r"\1", shown(cell.record))))
    return made
