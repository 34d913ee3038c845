"""What a plan names and nobody has started, which is one line of the report."""

from __future__ import annotations

from collections.abc import Sequence

from .records import MISSING, Model, Study, spelled
from .sheet import listed


def leave_out(study: Study) -> None:
    """Takes out what the plan names and nobody has started: rows of nothing hide what was measured."""
    whole = []
    for name, task in study.tasks.items():
        started = {u for m in task.models.values() for u, c in m.cells.items() if c.status != MISSING}
        runs = [unit for unit in task.units if started and unit not in started]
        if runs:
            told = listed([spelled(unit) for unit in runs])
            study.notes.append(f"Runs of the plan's task {name} that have not been started, of any model: {told}.")
        for model in task.models.values():
            for unit in runs:
                model.cells.pop(unit, None)
    for name, task in list(study.tasks.items()):
        unstarted = [m for m in task.models.values() if all(c.status == MISSING for c in m.cells.values())]
        if len(unstarted) == len(task.models):
            del study.tasks[name]
            whole.append(f"{name} ({len(task.cells)} {'cell' if len(task.cells) == 1 else 'cells'})")
        elif unstarted:
            told = _grouped(unstarted, len(task.networks))
            study.notes.append(f"Models of the plan's task {name} that have not been started: {told}.")
            for model in unstarted:
                del task.models[model.key]
    if whole:
        study.notes.append(f"Tasks of the plan that have not been started: {', '.join(whole)}.")


def _grouped(models: Sequence[Model], networks: int) -> str:
    """``"hard, ODConv"``, or ``"FCN: hard; ResNet, InceptionTime: static, hard"`` where a task has several networks."""
    labels: dict[str, list[str]] = {}
    for model in models:
        labels.setdefault(model.network, []).append(model.label)
    alike: dict[str, list[str]] = {}
    for network, names in labels.items():
        alike.setdefault(", ".join(names), []).append(network)
    if networks == 1:
        return next(iter(alike))
    return "; ".join(f"{', '.join(found)}: {names}" for names, found in alike.items())
