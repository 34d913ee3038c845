"""The summary in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from .overview import overview
from .sheet import Value
from .summary import Answer, heading

STYLES = {"good": "green", "bad": "red", "quiet": "dim", "": ""}


def summary(answers: Sequence[Answer], console: Console) -> None:
    """Prints one row a task and, below, the sentences."""
    table = RichTable(title=heading(a.task for a in answers), title_justify="left", padding=(0, 1))
    for title in ("task", "pays?", "best dynamic"):
        table.add_column(title, overflow="fold")
    for title in ("score", "points", "MAdds", "latency", "training"):
        table.add_column(title, justify="right")
    shown = overview(answers)
    for row in shown.rows:
        found = dict(zip((h.text for h in shown.heads), row, strict=True))
        task, word = row[:2]
        model, score, gap = (found.get(what, Value()) for what in ("best dynamic model", "score", "against static"))
        costs = [found.get(what, Value()) for what in ("MAdds", "latency", "training")]
        # The notes would fold in a terminal of 80 columns: they are in the sentences below.
        cells = [task.text, Text(word.text, STYLES[word.tone]), model.text]
        cells += [score.text + ("%" if score.raw else ""), gap.text]
        table.add_row(*cells, *(c.text + ("×" if c.raw else "") for c in costs))
    console.print(table)
    for answer in answers:
        console.print(f"{answer.task.name}: {answer.word}. {answer.text}", markup=False, highlight=False)
