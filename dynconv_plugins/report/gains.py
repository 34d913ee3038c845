"""The gain that the paper reports on its ten folds, under the test of ours, and ours beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from . import published
from .compare import Compared, p_value, points
from .fields import gap
from .records import Task
from .sheet import Head, Table, Value, breaks, within
from .statistics import Paired, paired, welch


def own_test() -> Paired:
    """The paired test of the paper's own folds, D-CNN against CNN; the paper makes none, nor tells what it held out."""
    ours, theirs = published.folds()["D-CNN"]["accuracy"], published.folds()["CNN"]["accuracy"]
    return paired(ours, theirs, 1 / (len(ours) - 1))


def note() -> str:
    """That test in words."""
    test = own_test()
    s = test.summary
    return (
        f"The paper's own ten folds under our test: D-CNN is {points(s.mean)} points ahead of CNN "
        f"(95% CI {points(s.low)} to {points(s.high)}), ahead in every fold; "
        f"corrected resampled t-test {p_value(test.p)}, plain paired t-test {p_value(test.plain)}, "
        f"Wilcoxon {p_value(test.wilcoxon)}: of one comparison, and therefore with no other correction. "
        "Its standard deviations, 0.059 and 0.062, divide by n; ours divide by n − 1, which gives 0.062 and 0.065."
    )


def gains(task: Task, rows: Sequence[Compared]) -> Table | None:
    """Our gains over the static twin less the paper's, each with an interval; None where there is none of both."""
    entry = published.entry_of(task)
    ours = [r for r in rows if r.pair and not math.isnan(r.pair.summary.low) and published.published(task, r.model)]
    if not (entry and entry.get("folded")) or not ours:
        return None
    own = own_test().summary
    heads = [Head("Model", number=False), Head("ahead of static", "points"), Head("less the paper's gain", "points")]
    table = Table(f"{task.name}-gains", "The gain beside the paper's", heads)
    for row in ours:
        less = welch(row.pair.summary, own)
        shown = within(Value(points(less.mean), raw=100 * less.mean), less.low, less.high, signed=True)
        table.rows.append([Value(row.name, mark=row.model.label), gap(row), shown])
    table.breaks = breaks(r.model.network for r in ours) | {len(ours)}
    theirs = within(Value(points(own.mean), raw=100 * own.mean), own.low, own.high, signed=True)
    table.rows.append([Value("the paper's D-CNN"), theirs, Value()])
    table.about = (
        "Differences with their 95% confidence intervals, widened for the overlap of the training sets of folds (the "
        "paper's by 1/9, since it does not tell what it held out) and not corrected for the number of models. The last "
        "column is the difference of two gains with Welch's interval, which takes them as independent."
    )
    return table
