"""What a plan names and nobody has started, which is one line of the report."""

from __future__ import annotations

from collections.abc import Sequence

from .names import order, spelled
from .records import MISSING, Model, Study, Task
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


def lacking(task: Task) -> list[tuple[str, str, str]]:
    """Cells without a result, their state and why; those of which that is all there is to say share a line."""
    told = [(c.key, c.status, c.why) for c in task.cells if c.metrics is None and c.status != MISSING]
    missing = [c for c in task.cells if c.status == MISSING]
    if len(missing) < 2:
        return told + [(c.key, c.status, c.why) for c in missing]
    alike: dict[str, list[str]] = {}
    for model in task.ordered():
        units = sorted((u for u, c in model.cells.items() if c.status == MISSING), key=order)
        if units:
            alike.setdefault(_run(units), []).append(task.name_of(model))
    why = "; ".join(f"{listed(names)} ({units})" for units, names in alike.items())
    return [*told, (f"{task.name}: {len(missing)} cells", MISSING, f"not started: {why}")]


def _run(units: Sequence[str]) -> str:
    """``"seeds 1 to 4"``, or ``"seed 1 and seed 3"``."""
    kinds, numbers = zip(*map(order, units), strict=True)
    if len(units) > 2 and len(set(kinds)) == 1 and numbers[-1] - numbers[0] == len(units) - 1:
        return f"{kinds[0]}s {numbers[0]} to {numbers[-1]}"
    return listed([spelled(unit) for unit in units])


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
