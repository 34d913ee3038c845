"""The table of a task's single runs, the paper's Table 4a."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import published
from .names import spelled
from .records import Task
from .sheet import DASH, Head, Table, Value, breaks, capital, percent


def runs(task: Task) -> Table:
    """Score and loss of every fold or seed; of the paper's networks, its Table 4a."""
    units = task.units
    theirs = " (Table 4a and Figure 9 of the paper)" if task.folded and published.source(task) else ""
    table = Table(
        f"{task.name}-runs",
        f"Every {'fold' if task.folded else 'run'}{theirs}",
        [Head("Model", number=False), *(Head(spelled(u)) for u in units), Head("mean"), Head("sd")],
        about=f"{capital(task.score_name)} in %{f', with the {task.scored} loss' if _with_losses(task) else ''}.",
    )
    for model in task.ordered():
        found = model.results
        fields = []
        for unit in units:
            if unit in found:
                loss = found[unit].loss
                fields.append(percent(found[unit].score, "" if loss is None else f"{loss:.3f}"))
            else:
                status = model.cells[unit].status if unit in model.cells else ""
                fields.append(Value(DASH, status, "", tone="quiet"))
        scores = np.array([m.score for m in found.values()])
        losses = np.array([m.loss for m in found.values() if m.loss is not None])
        mean = percent(float(scores.mean()), f"{losses.mean():.3f}" if len(losses) else "") if len(scores) else Value()
        spread = Value()
        if len(scores) > 1:
            note = f"{losses.std(ddof=1):.3f}" if len(losses) > 1 else ""
            spread = percent(float(scores.std(ddof=1)), note)
        table.rows.append([Value(task.name_of(model), mark=model.label), *fields, mean, spread])
    table.breaks = breaks(m.network for m in task.ordered())
    if published.source(task) and task.folded and len(units) == len(published.folds()["CNN"]["accuracy"]):
        table.breaks.add(len(table.rows))
        table.about += " Of its own the paper says “loss” alone, not of which samples."
        table.rows += [_theirs(name, own) for name, own in published.folds().items()]
    return table


def _with_losses(task: Task) -> bool:
    return any(r.loss is not None for m in task.models.values() for r in m.results.values())


def _theirs(name: str, own: Mapping[str, Sequence[float]]) -> list[Value]:
    """A row of the paper's Table 4a, whose folds are not ours."""
    scores, losses = np.array(own["accuracy"]), np.array(own["loss"])
    pairs = zip(scores, losses, strict=True)
    ends = percent(scores.mean(), f"{losses.mean():.3f}"), percent(scores.std(ddof=1), f"{losses.std(ddof=1):.3f}")
    return [Value(f"the paper's {name}"), *(percent(float(s), f"{loss:.3f}") for s, loss in pairs), *ends]
