"""The result table: for the terminal, for Markdown and, as strings, for the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from dynconv_plugins.demo.records import OPERATORS, Row

HEADS = ("score", "params", "MAdds", "latency", "training")


def number(value: float, unit: str = "") -> str:
    """Three significant digits with a metric prefix: ``11.9M``, ``1.84G``."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.2f}{letter}{unit}" if value < 100 * limit else f"{value / limit:.1f}{letter}{unit}"
    return f"{value:.0f}{unit}"


def score(row: Row) -> str:
    if row.score is None:
        return "-"
    return f"{row.score:.1%}" + (f" ± {row.stderr * 100:.1f}" if row.stderr is not None else "")


def ratio(value: float | None, base: float | None) -> str:
    """``value`` as a multiple of the static twin's; empty where one of them is missing."""
    return f"{value / base:.2f}x" if value and base else ""


def twin_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The static row of the same task; None for the static row itself."""
    return next((r for r in rows if r.task == row.task and r.operator == "static" and r is not row), None)


def points(row: Row, rows: Sequence[Row]) -> str:
    """The score against the static twin's, in points."""
    twin = twin_of(row, rows)
    if twin is None or twin.score is None or row.score is None:
        return ""
    return f"{(row.score - twin.score) * 100:+.1f}"


def numbers(row: Row, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Parameters, MAdds, latency and seconds, each with its multiple of the static twin's."""
    twin = twin_of(row, rows)
    shown = {
        "params": number(row.params or 0),
        "macs": number(row.macs or 0),
        "latency_ms": f"{row.latency_ms or 0:.1f} ms",
        "seconds": f"{row.seconds or 0:.0f} s",
    }
    made = []
    for name, text in shown.items():
        value = getattr(row, name)
        made.append(("-" if value is None else text, ratio(value, getattr(twin, name)) if twin else ""))
    return made


def described(row: Row) -> str:
    """The data behind a score: an accuracy means little without the number of samples under it."""
    return f"{row.data}: {row.train} training, {row.test} test {row.unit}, {row.classes} classes"


def terminal(rows: Sequence[Row]) -> Table:
    """Fits 80 columns: multiples and points stand under their numbers."""
    table = Table(title="Static and dynamic twins", title_justify="left", header_style="bold", padding=(0, 1))
    table.add_column("model", overflow="fold")
    for head in HEADS:
        table.add_column(head, justify="right")
    for i, row in enumerate(rows):
        if i == 0 or rows[i - 1].task != row.task:
            table.add_row(f"[bold]{row.task}[/bold]", row.score_name)
            table.add_row(f"[dim]{row.data}[/dim]", f"[dim]{row.test} test[/dim]")
        last = i + 1 == len(rows) or rows[i + 1].task != row.task
        if row.status != "done":
            table.add_row(f"{OPERATORS[row.operator]}", "failed", style="red", end_section=last)
            continue
        gap = points(row, rows)
        cells = [score(row) + (f"\n{gap} points" if gap else "")]
        cells += [text + (f"\n{times}" if times else "") for text, times in numbers(row, rows)]
        table.add_row(f"{OPERATORS[row.operator]}\n[dim]{row.model}[/dim]", *cells, end_section=last)
    return table


def markdown(rows: Sequence[Row]) -> str:
    heads = ("task", "data", "model", *HEADS)
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for row in rows:
        gap = points(row, rows)
        result = f"{score(row)} {row.score_name}" + (f" ({gap} points)" if gap else "")
        measured = [text + (f" ({times})" if times else "") for text, times in numbers(row, rows)]
        cells = [row.task, described(row), f"{row.model}, {OPERATORS[row.operator]}"]
        cells += [result if row.status == "done" else "failed", *measured]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Commands:", ""]
    lines += [f"- {row.task}, {OPERATORS[row.operator]}: `{row.command}`" for row in rows]
    lines += [f"\nFailed: {r.task}, {OPERATORS[r.operator]}: {r.error}" for r in rows if r.status != "done"]
    return "\n".join(lines) + "\n"
