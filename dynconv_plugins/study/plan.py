"""What a study runs: YAML files, shipped ones by name, checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import registry
from ..errors import UnknownName, UserError
from .reading import read
from .tasks import STATIC, Model, Task, is_folder, known, read_tasks

PLANS = Path(__file__).parent / "plans"


@dataclass(frozen=True)
class Plan:
    """A study. `raw` is the YAML as read, kept beside the results."""

    name: str
    about: str
    tasks: tuple[Task, ...]
    raw: Mapping[str, Any]


def names() -> list[str]:
    """Names of the plans that are shipped."""
    return sorted(path.stem for path in PLANS.glob("*.yaml"))


def load(plan: str | Path) -> Plan:
    """Reads a plan: a file, or the name of a shipped one.

    Raises:
        UnknownName: If it is neither.
        UserError: If something in it is missing, unknown or of the wrong kind; one line that says where.
    """
    path = Path(plan)
    if not path.is_file():
        if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
            raise UserError(f"no plan {path}; shipped are: {', '.join(names())}")
        if str(plan) not in names():
            raise UnknownName("plan", str(plan), names())
        path = PLANS / f"{plan}.yaml"
    return parse(read(path), path.stem)


def parse(raw: Any, name: str) -> Plan:
    """Checks what a YAML file held and makes a plan of it."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("tasks"), Mapping) or not raw["tasks"]:
        raise UserError(f"plan {name}: it needs 'tasks:', each with a name of its own")
    known(raw, {"name", "about", "tasks"}, f"plan {name}")
    tasks = tuple(task for key, value in raw["tasks"].items() for task in read_tasks(str(key), value, name))
    tasknames = [task.name for task in tasks]
    if twice := next((task for task in tasknames if tasknames.count(task) > 1), None):
        raise UserError(f"plan {name}: two tasks are called {twice}; give one of them another name")
    called = str(raw.get("name") or name)
    if not is_folder(called):
        raise UserError(f"plan {name}: the name {called!r} becomes a folder's; use letters, digits and -_+.")
    return Plan(called, str(raw.get("about") or "").strip(), tasks, raw)


def narrowed(
    plan: Plan,
    tasks: Sequence[str] | None = None,
    networks: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    seeds: int | None = None,
) -> Plan:
    """A part of a plan: some tasks, some networks, some models beside the static ones, another number of seeds.

    An operator that the plan does not name joins every task.

    Raises:
        UnknownName: If the plan has no such task or network, or neither it nor the registry such a model.
        UserError: If nothing is left.
    """
    named = [m.label for t in plan.tasks for m in t.models]
    for kind, asked, there in (
        ("task", tasks, [t.name for t in plan.tasks]),
        ("network", networks, [n for t in plan.tasks for n in t.networks]),
        ("model", models, [*named, *registry.names()]),
    ):
        for name in asked or ():
            if name not in there:
                raise UnknownName(f"{kind} of plan {plan.name}:", name, dict.fromkeys(there))
    joining = [Model(name, name) for name in models or () if name not in named and name in registry.names()]
    parts = (
        replace(
            task,
            models=_compared(task.models, models, joining),
            seeds=task.seeds if seeds is None or task.folds else seeds,
            # A cell's folder is named after all networks of its task: it must stay the same in a part of the plan.
            chosen=tuple(n for n in task.networks if not networks or n in networks),
        )
        for task in plan.tasks
        if not tasks or task.name in tasks
    )
    left = tuple(task for task in parts if task.chosen and task.models)
    if not left:
        raise UserError(f"no task of plan {plan.name} has all that was asked for")
    return replace(plan, tasks=left)


def _compared(models: Iterable[Model], asked: Sequence[str] | None, joining: Sequence[Model]) -> tuple[Model, ...]:
    """Those that were asked for beside the static ones, which alone are nobody's wish unless they were asked for."""
    if not asked:
        return tuple(models)
    kept = (*(m for m in models if m.operator == STATIC or m.label in asked), *joining)
    return kept if STATIC in asked or any(m.operator != STATIC for m in kept) else ()
