"""The report as Markdown: the same tables and pictures, for a repository's documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .commands import commands
from .grids import Grid
from .sections import Section
from .sheet import Table
from .studio import Picture
from .summary import heading


def markdown(
    sections: Sequence[Section],
    summaries: Sequence[Table],
    caveats: Mapping[str, Sequence[str]],
    facts: Sequence[tuple[str, str]],
) -> str:
    """The whole report; pictures are linked from ``img/``."""
    lines = [f"# {heading(s.task for s in sections)}", ""]
    for s in sections:
        lines += [f"**{s.task.name}: {s.answer.word}.** {s.answer.text}", ""]
    for table in summaries:
        lines += _table(table, level=2)
    if caveats:
        lines += ["## Before you believe it", "", *(_caveat(*c) for c in caveats.items()), ""]
    for s in sections:
        lines += _section(s)
    lines += ["## How it was made", "", *(f"- {k}: {v}" for k, v in facts), ""]
    for s in sections:
        lines += [f"Commands of {s.task.name}, one a model:", "", *(f"    {text}" for _, text in commands(s.task)), ""]
    return "\n".join(lines).rstrip() + "\n"


def _caveat(about: str, lines: Sequence[str]) -> str:
    return f"- **{about}:** {' '.join(lines)}" if about else f"- {' '.join(lines)}"


def _section(s: Section) -> list[str]:
    lines = [f"## {s.task.name}", "", s.facts, ""]
    lines += _table(s.results)
    for note in s.notes:
        lines += [note, ""]
    for table in (s.budget, s.costs):
        lines += _table(table)
    lines += _pictures(s.against_cost)
    lines += [s.against_cost_of, ""] if s.against_cost_of else []
    lines += _table(s.classes)
    if len(s.task.units) > 1:
        lines += _table(s.runs)
    lines += _pictures(s.folds)
    for table in (s.tests, s.gains, *s.between):
        lines += _table(table)
    lines += _table(s.references)
    if s.curves:
        lines += ["### Learning curves", "", s.curves_of, "", *_pictures(s.curves)]
    for grid in s.gallery.grids:
        lines += _grid(grid)
    for name, drawn in s.gallery.attentions:
        lines += [f"### The operator's own attentions: {name}", ""]
        for d in drawn:
            lines += [f"{d.title}. {d.caption}", "", *_pictures([d.picture])]
    for note in s.gallery.notes:
        lines += [note, ""]
    if s.failures:
        lines += ["### Cells without a result", "", *(f"- `{k}`: {status}: {why}" for k, status, why in s.failures), ""]
    return lines


def _table(table: Table | None, level: int = 3) -> list[str]:
    if table is None or not table.rows:
        return []
    made = ["#" * level + f" {table.title}", "", table.markdown()]
    return made + ([table.about, ""] if table.about else [])


def _pictures(pictures: Sequence[Picture]) -> list[str]:
    return [f"![{p.alt}](img/{p.name}.png)" for p in pictures] + ([""] if pictures else [])


def _grid(grid: Grid) -> list[str]:
    lines = [f"### {grid.title}", "", "| | " + " | ".join(grid.heads) + " |", "|" + " --- |" * (len(grid.heads) + 1)]
    for name, row in grid.rows:
        cells = (f"![{p.alt}](img/{p.name}.png) {p.note}".rstrip() if p else "–" for p in row)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", grid.caption, ""]
    if grid.legend:
        lines += [", ".join(f"{name} `{colour}`" for name, colour in grid.legend), ""]
    return lines
