"""Dynamic models against each other; against their static twins they are tested in `compare`."""

from __future__ import annotations

from itertools import combinations

from .compare import overlap, p_value, points
from .records import STATIC, Model, Task
from .same import alike, corrected
from .sheet import NUMBERS, Head, Table, Value
from .statistics import ENOUGH, LEVEL, Paired, paired


def between(task: Task) -> list[Table]:
    """A matrix for each network: by how much the model of the row is ahead of that of the column, and Holm's p.

    Networks of which no two dynamic models have enough common runs to be tested have none.
    """
    made, same = [], alike(task)
    for network in task.networks:
        models = [m for m in task.ordered() if m.network == network and m.operator != STATIC and m.results]
        found = {(a.key, b.key): _pair(task, a, b) for a, b in combinations(models, 2)}
        once = _once([m.key for m in models], same)
        # A model and its double are no pair to be tested.
        doubles = {(a, b) for a, b in found if same.get(a, a) == same.get(b, b)}
        ps = {key: None if key in doubles else pair.p for key, pair in found.items()}
        adjusted, tests = corrected(ps, once)
        if not tests:
            continue
        several = len(task.networks) > 1
        table = Table(
            f"{task.name}-{network}-between" if several else f"{task.name}-between",
            f"Dynamic models against each other{f', {network}' if several else ''}",
            [Head("Ahead by (points)", number=False), *(Head(m.label) for m in models)],
        )
        for a in models:
            row = [Value(a.label, mark=a.label)]
            for b in models:
                straight = (a.key, b.key) in found
                key = (a.key, b.key) if straight else (b.key, a.key)
                row.append(_field(found[key], adjusted[key], 1 if straight else -1) if a is not b else Value())
            table.rows.append(row)
        many = "the one pair" if tests == 1 else f"the {tests} pairs"
        table.about = (
            "The row's model less the column's, over common runs; p of the same test as against the static twin, after "
            f"Holm's correction for {many} that could be tested. Bold where p is below {LEVEL:.2f} in "
            f"{NUMBERS[ENOUGH]} common runs or more: fewer make no firm result."
        )
        made.append(table)
    return made


def _once(keys: list[str], same: dict[str, str]) -> dict[tuple[str, str], tuple[str, str]]:
    """Pairs that are another pair, since a model of theirs has a double before it."""
    made = {}
    for a, b in combinations(keys, 2):
        first = tuple(sorted((same.get(a, a), same.get(b, b)), key=keys.index))
        if first != (a, b) and first[0] != first[1]:
            made[a, b] = first
    return made


def _pair(task: Task, a: Model, b: Model) -> Paired:
    ours, theirs = a.results, b.results
    common = [unit for unit in ours if unit in theirs]
    return paired([ours[u].score for u in common], [theirs[u].score for u in common], overlap(task))


def _field(pair: Paired, p: float | None, sign: int) -> Value:
    if not pair.summary.n:
        return Value()
    mean = sign * pair.summary.mean
    firm = p is not None and p < LEVEL and pair.summary.n >= ENOUGH
    return Value(points(mean), p_value(p), 100 * mean, tone="best" if firm else "")
