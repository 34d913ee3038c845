"""The self-contained page: one file, no network, readable on a phone and on paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from dynconv_plugins.demo.figures import Album, curves
from dynconv_plugins.demo.records import OPERATORS, Row
from dynconv_plugins.demo.table import described, numbers, points, score, twin_of
from dynconv_plugins.writing import write_text


@dataclass
class Masks:
    """Sample segmentations: `images` holds ``len(heads)`` pictures for each sample, row by row."""

    heads: list[str]
    images: list[dict[str, str]]
    legend: list[dict[str, str]]


@dataclass
class Section:
    """What a host's adapter has to say about its task."""

    task: str
    title: str
    host: str
    about: str
    masks: Masks | None = None
    attention: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def render(
    path: Path, sections: Sequence[Section], rows: Sequence[Row], album: Album, facts: Mapping[str, Any]
) -> None:
    """Writes the page.

    Args:
        path: The HTML file.
        sections: One per task, in the order of the page.
        rows: The result table.
        album: Keeps the pictures.
        facts: ``made``, ``size``, ``machine``, ``versions`` as `machine.facts` returns them.
    """
    from jinja2 import Environment, StrictUndefined

    source = (files("dynconv_plugins.demo") / "page.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)
    shown = []
    for section in sections:
        mine = [r for r in rows if r.task == section.task]
        shown.append(
            {
                "title": section.title,
                "host": section.host,
                "data": described(mine[0]),
                "about": section.about,
                "rows": [_row(r, mine) for r in mine],
                "curves": _curves(section, mine, album),
                "masks": section.masks,
                "attention": section.attention,
                "notes": section.notes,
            }
        )
    machine = facts["machine"]
    listed = [*facts["versions"].items(), *((k.replace("_", " "), v) for k, v in machine.items())]
    page = template.render(
        sections=shown,
        made=facts["made"],
        size=facts["size"],
        minutes=_minutes(sum(r.seconds or 0 for r in rows)),
        machine=machine,
        caution=caution(rows),
        facts=listed,
    )
    write_text(path, page)


def caution(rows: Sequence[Row]) -> str:
    """What has to be said beside numbers from small data, and where dynamic is not ahead."""
    behind = []
    for row in rows:
        twin = twin_of(row, rows)
        if twin and row.score is not None and twin.score is not None and row.score < twin.score:
            behind.append(f"{row.task} ({OPERATORS[row.operator]})")
    text = "One short run each, no second seed: a difference within a few standard errors says nothing."
    return text + (f" The dynamic network is behind its static twin on: {', '.join(behind)}." if behind else "")


def _row(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
    heads = ("parameters", "MAdds", "latency, batch 1", "training")
    gap = points(row, rows)
    return {
        "title": OPERATORS[row.operator],
        "model": row.model,
        "failed": "" if row.status == "done" else row.error,
        "score": score(row),
        "score_name": row.score_name,
        "points": f"{gap} points" if gap else "",
        "numbers": [
            {"head": head, "value": text, "ratio": times}
            for head, (text, times) in zip(heads, numbers(row, rows), strict=True)
        ],
        "command": row.command,
    }


def _curves(section: Section, rows: Sequence[Row], album: Album) -> list[dict[str, str]]:
    drawn = {r.operator: r.curve for r in rows if r.curve.steps}
    if not drawn:
        return []
    unit = next((r.curve_unit for r in rows if r.curve.steps), "step")
    made = curves(drawn, unit, rows[0].score_name)
    names = {"loss": "loss", "score": rows[0].score_name}
    has_score = any(not math.isnan(s) for c in drawn.values() for s in c.score)
    return [
        {"alt": f"{section.title}: {names[k]} over training", "src": album.add(f"{section.task}-{k}", f)}
        for k, f in made.items()
        if k == "loss" or has_score
    ]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"
