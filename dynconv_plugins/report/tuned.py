"""Recipes against each other, where they are being chosen on a part of the training data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .compare import overlap, points
from .records import STATIC, Model, Task
from .sheet import Head, Table, Value, breaks, percent, within
from .statistics import paired, summarise
from .unite import parts


def recipes(tasks: Sequence[Task]) -> Table | None:
    """A row for each task in which recipes are chosen, the best first among those of the same host, data and networks.

    Columns are the scores of its models and how far each is from that of the first row, over common runs.
    """
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        if task.tuning and any(m.results for m in task.models.values()):
            data = next((r["data"] for r in task.records if r.get("data")), {})
            groups.setdefault(str((task.fact("host"), parts(data), task.networks)), []).append(task)
    if not any(len(group) > 1 for group in groups.values()):
        return None
    names = dict.fromkeys(task.name_of(m) for g in groups.values() for task in g for m in task.ordered() if m.results)
    names = sorted(names, key=lambda name: not name.endswith(STATIC))
    heads = [Head("Task", number=False), *(Head(name, "%") for name in names)]
    table = Table(
        "recipes", "Which recipe won", [*heads, *(Head(f"{name}, less the best", "points") for name in names)]
    )
    hosts = []
    for key, group in groups.items():
        shared = _shared(group)
        best, *others = sorted(group, key=lambda task: -_mean(task, shared))
        for task in (best, *others):
            data = f"{task.fact('host')}, {task.data('name') or ''}"
            scores = [_score(task, name) for name in names]
            table.rows.append([Value(task.name, data), *scores, *(_less(task, best, name) for name in names)])
            hosts.append(key)
    table.breaks = breaks(hosts)
    table.about = (
        "Scores on a part of the training data; the test set is not read. The best recipe comes first, by the mean of "
        "the models and runs that all recipes of the same host and data have been tried with. “Less the best” is the "
        "mean difference from it over common runs, with its 95% confidence interval from three runs on, not corrected "
        "for the number of recipes. The best of many is likely to be flattered a little."
    )
    return table.without_empty()


def _find(task: Task, name: str) -> Model | None:
    return next((m for m in task.models.values() if task.name_of(m) == name and m.results), None)


def _shared(group: Sequence[Task]) -> set[tuple[str, str]]:
    """Models by name, and their runs, that all tasks have a result of; without any, those that any has."""
    found = [{(task.name_of(m), unit) for m in task.models.values() for unit in m.results} for task in group]
    return set.intersection(*found) or set.union(*found)


def _mean(task: Task, shared: set[tuple[str, str]]) -> float:
    """Over the models, of each one's mean over its runs."""
    found = ([r.score for u, r in m.results.items() if (task.name_of(m), u) in shared] for m in task.models.values())
    means = [sum(scores) / len(scores) for scores in found if scores]
    return sum(means) / len(means) if means else -math.inf


def _score(task: Task, name: str) -> Value:
    model = _find(task, name)
    if model is None:
        return Value()
    s = summarise([r.score for r in model.results.values()], overlap(task))
    return within(percent(s.mean), *s.clipped)


def _less(task: Task, best: Task, name: str) -> Value:
    ours, theirs = _find(task, name), _find(best, name)
    if task is best or ours is None or theirs is None:
        return Value()
    common = [unit for unit in ours.results if unit in theirs.results]
    if not common:
        return Value()
    pair = paired([ours.results[u].score for u in common], [theirs.results[u].score for u in common], overlap(task))
    shown = Value(points(pair.summary.mean), raw=100 * pair.summary.mean)
    return shown if pair.p is None else within(shown, pair.summary.low, pair.summary.high, signed=True)
