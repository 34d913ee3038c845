"""Fields that several tables show: a model's score and how far it is from its static twin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .compare import Compared, points
from .records import Task
from .sheet import WILSON, Value, percent, within


def score(row: Compared) -> Value:
    """The mean in percent with its interval, marked where that is not of the spread between runs."""
    field = within(percent(row.scores.mean), *row.bounds)
    return replace(field, note=f"{field.note} {WILSON}") if row.binomial else field


def gap(row: Compared) -> Value:
    """The difference from the static twin in points, with its interval from `FEWEST` runs on."""
    if row.pair is None or not row.pair.summary.n:
        return Value()
    s = row.pair.summary
    return within(Value(points(s.mean), raw=s.mean * 100), s.low, s.high, signed=True)


def wilson_line(task: Task, rows: Iterable[Compared]) -> str:
    """What the mark of such an interval means; empty where no score has it."""
    if not any(r.binomial for r in rows):
        return ""
    return (
        f"{WILSON} One run, or runs that all agree: Wilson's interval of the {task.scored} set alone, which intervals "
        "over runs leave out. "
    )
