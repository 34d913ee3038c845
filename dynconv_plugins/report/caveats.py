"""What has to be known before the numbers of a report are believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from . import published
from .collect import missing_line, static_missing
from .compare import Compared
from .floor import floor
from .records import Study, Task
from .sheet import NUMBERS, capital
from .statistics import ENOUGH, wilson


def caveats(study: Study, compared: Mapping[str, Sequence[Compared]]) -> dict[str, list[str]]:
    """What has to be known before the numbers are believed: sentences by task, those about all under ``""``."""
    made = {"": list(study.notes)}
    for task in study.tasks.values():
        made[task.name] = [line for line in _caveats(task, compared[task.name]) if line]
    return {about: lines for about, lines in made.items() if lines}


def _caveats(task: Task, rows: Sequence[Compared]) -> Iterator[str]:
    yield floor(rows)
    yield missing_line(task)
    yield from task.notes
    if lacking := static_missing(task):
        yield f"There is no static twin of {', '.join(lacking)} to compare with."
    restless = [r.name for r in rows if r.model.costs and r.model.costs.restless]
    if restless:
        yield f"The latency of {', '.join(restless)} varied by more than half while measured: the machine was busy."
    counts = [len(r.model.results) for r in rows if r.model.results]
    if counts and not task.folded and min(counts) < ENOUGH:
        runs = f"{min(counts)} to {max(counts)} runs" if min(counts) < max(counts) else f"{min(counts)} runs"
        runs = "one run" if max(counts) == 1 else runs
        yield f"Only {runs} of each model: below {NUMBERS[ENOUGH]} seeds nothing is a firm result."
    if task.data("real") is False:
        yield f"{capital(str(task.data('name')))}: the built-in data set, made up to try things out."
    elif not published.source(task):  # where its numbers are shown, that stands below them
        yield published.not_comparable(task)
    yield _noise(task, rows)


def _noise(task: Task, rows: Sequence[Compared]) -> str:
    """What the size of the test set alone does to an accuracy like these."""
    n = task.data("test")
    means = [r.scores.mean for r in rows if r.scores.n]
    if task.score_name != "accuracy" or not isinstance(n, int) or n <= 0 or not means:
        return ""
    middle = sorted(means)[len(means) // 2]
    low, high = wilson(middle, n)
    where = f"{n:,} {task.scored} samples{' in each fold' if task.folded else ''}"
    told = f"a 95% interval of {low:.1%} to {high:.1%} from the {task.scored} set alone"
    return f"{where}: an accuracy of {middle:.1%} has {told}."
