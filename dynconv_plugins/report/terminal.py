"""The summary in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from .summary import Answer, overview

STYLES = {"good": "green", "bad": "red", "quiet": "dim", "": ""}


def summary(answers: Sequence[Answer], console: Console) -> None:
    """Prints one row a task and, below, the sentences."""
    made = overview(answers)
    table = RichTable(title="Does dynamic convolution pay?", title_justify="left", padding=(0, 1))
    for head in made.heads:
        table.add_column(head.title, justify="right" if head.number else "left", overflow="fold")
    for row in made.rows:
        cells = []
        for value in row:
            cell = Text(value.text, STYLES.get(value.tone, ""))
            if value.note:
                cell.append(f"\n{value.note}", "dim")
            cells.append(cell)
        table.add_row(*cells, end_section=True)
    console.print(table)
    for answer in answers:
        console.print(f"{answer.task.name}: {answer.word}. {answer.text}", markup=False, highlight=False)
