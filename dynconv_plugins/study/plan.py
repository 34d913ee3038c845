"""What a study runs: YAML files, shipped ones by name, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .. import registry
from ..errors import UnknownName, UserError
from .reading import read

PLANS = Path(__file__).parent / "plans"
STATIC = "static"
HOSTS = ("timm", "mmseg", "tsai")


@dataclass(frozen=True)
class Model:
    """One column of the comparison.

    Attributes:
        operator: A name of the registry, or ``static``.
        label: Its name in folders and tables.
        where: A placement, see `dynconv_plugins.placement`; None is the operator's own.
        arguments: The operator's arguments, such as ``num_kernels``.
    """

    operator: str
    label: str
    where: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One data set, one recipe, some networks, and the models to compare.

    Attributes:
        name: Its folder's name.
        host: ``timm``, ``mmseg`` or ``tsai``.
        data: ``name`` and, depending on the host, how much of it (see `hosts`).
        networks: ``resnet18``; for mmseg the head (``fpn``, ``deeplabv3plus``); for tsai ``FCN``, ``Net1``, ...
        models: What is compared.
        recipe: A recipe of the host.
        options: What differs from the recipe, in the host's own words.
        seeds: Repetitions with other seeds.
        folds: Cross-validation instead of the official split (tsai).
        processes: Processes that share each run, by torchrun; the batch is divided among them.
        about: A line for the report.
        chosen: The networks to run; empty: all.
    """

    name: str
    host: str
    data: Mapping[str, Any]
    networks: tuple[str, ...]
    models: tuple[Model, ...]
    recipe: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    folds: int | None = None
    processes: int = 1
    about: str = ""
    chosen: tuple[str, ...] = ()


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
    _known(raw, {"name", "about", "tasks"}, f"plan {name}")
    tasks = tuple(task for key, value in raw["tasks"].items() for task in _tasks(str(key), value, name))
    tasknames = [task.name for task in tasks]
    if twice := next((task for task in tasknames if tasknames.count(task) > 1), None):
        raise UserError(f"plan {name}: two tasks are called {twice}; give one of them another name")
    called = str(raw.get("name") or name)
    if not _folder(called):
        raise UserError(f"plan {name}: the name {called!r} becomes a folder's; use letters, digits and -_+.")
    return Plan(called, str(raw.get("about") or "").strip(), tasks, raw)


def _folder(name: str) -> bool:
    """Whether this can be the name of a folder everywhere."""
    return name.strip(".") != "" and all(c.isalnum() or c in "-_+." for c in name)


def _tasks(key: str, raw: Any, plan: str) -> list[Task]:
    """A task, or one for each of its recipes: what is trained in another way is another task."""
    if not isinstance(raw, Mapping) or isinstance(raw.get("recipe"), str) or not raw.get("recipe"):
        return [_task(key, raw, plan)]
    recipes = _listed(raw["recipe"], f"plan {plan}, task {key}", "recipe")
    return [_task(f"{key}-{recipe}", {**raw, "recipe": recipe}, plan) for recipe in recipes]


def _task(key: str, raw: Any, plan: str) -> Task:
    place = f"plan {plan}, task {key}"
    if not isinstance(raw, Mapping):
        raise UserError(f"{place}: it needs host, data, networks, models and recipe")
    _known(raw, {f.name for f in fields(Task)} - {"name", "chosen"}, place)
    missing = [k for k in ("host", "data", "networks", "models", "recipe") if not raw.get(k)]
    if missing:
        raise UserError(f"{place}: {' and '.join(missing)} missing")
    if not key.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"{place}: a task's name becomes a folder's; use letters, digits, - and _")
    if raw["host"] not in HOSTS:
        raise UnknownName("host", str(raw["host"]), HOSTS)
    data = {"name": raw["data"]} if isinstance(raw["data"], str) else raw["data"]
    for what, value in (("data", data), ("options", raw.get("options", {}))):
        if not isinstance(value, Mapping):
            raise UserError(f"{place}: {what} takes a mapping, not {value!r}")
    if "name" not in data:
        raise UserError(f"{place}: data has no name")
    if "seed" in raw.get("options", {}):
        raise UserError(f"{place}: the seed is the cell's own; say how many with seeds")
    counts = {k: raw[k] for k in ("seeds", "folds", "processes") if raw.get(k) is not None}
    for what, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < (2 if what == "folds" else 1):
            raise UserError(f"{place}: {what} must be a whole number of at least {2 if what == 'folds' else 1}")
    if raw.get("folds") and raw["host"] != "tsai":
        raise UserError(f"{place}: folds are for tsai; {raw['host']} has seeds")
    if raw.get("folds") and raw.get("seeds"):
        raise UserError(f"{place}: seeds or folds, not both")
    models = tuple(_model(m, place) for m in _listed(raw["models"], place, "models"))
    labels = [m.label for m in models]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        raise UserError(f"{place}: two models are called {twice}; give one of them a label")
    networks = tuple(str(n) for n in _listed(raw["networks"], place, "networks"))
    if len(set(networks)) < len(networks):
        raise UserError(f"{place}: a network is named twice: {', '.join(networks)}")
    return Task(
        name=key,
        host=raw["host"],
        data=dict(data),
        networks=networks,
        models=models,
        recipe=str(raw["recipe"]),
        options=dict(raw.get("options", {})),
        about=str(raw.get("about") or "").strip(),
        **counts,
    )


def _model(raw: Any, place: str) -> Model:
    if isinstance(raw, str):
        raw = {"operator": raw}
    if not isinstance(raw, Mapping) or "operator" not in raw:
        raise UserError(f"{place}: a model is an operator's name, or a mapping with 'operator', not {raw!r}")
    arguments = {k: v for k, v in raw.items() if k not in ("operator", "label", "where")}
    operator = str(raw["operator"])
    if operator != STATIC:
        registry.get(operator)
    elif arguments or raw.get("where"):
        raise UserError(f"{place}: the static model takes no arguments")
    label = str(raw.get("label") or operator)
    if not _folder(label):
        raise UserError(f"{place}: the label {label!r} becomes a folder's name; use letters, digits and -_+.")
    return Model(operator, label, raw.get("where"), arguments)


def _listed(value: Any, place: str, what: str) -> Sequence[Any]:
    if isinstance(value, (str, Mapping)):
        return [value]
    if not isinstance(value, Sequence):
        raise UserError(f"{place}: {what} takes a list, not {value!r}")
    return value


def _known(raw: Mapping, allowed: set[str], place: str) -> None:
    for key in raw:
        if key not in allowed:
            raise UnknownName(f"entry of {place}:", str(key), allowed)


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
    more = tuple(Model(name, name) for name in models or () if name not in named and name in registry.names())
    for kind, asked, known in (
        ("task", tasks, [t.name for t in plan.tasks]),
        ("network", networks, [n for t in plan.tasks for n in t.networks]),
        ("model", models, [*named, *registry.names()]),
    ):
        for name in asked or ():
            if name not in known:
                raise UnknownName(f"{kind} of plan {plan.name}:", name, dict.fromkeys(known))
    chosen = []
    for task in plan.tasks:
        if tasks and task.name not in tasks:
            continue
        kept = (*(m for m in task.models if not models or m.operator == STATIC or m.label in models), *more)
        again = task.seeds if seeds is None or task.folds else seeds
        some = tuple(n for n in task.networks if not networks or n in networks)
        # Static twins alone are nobody's wish where models were named.
        if not some or (models and all(m.operator == STATIC for m in kept) and STATIC not in models):
            continue
        # A cell's folder is named after all networks of its task: it must stay the same in a part of the plan.
        chosen.append(replace(task, models=kept, seeds=again, chosen=some))
    if not chosen:
        raise UserError(f"no task of plan {plan.name} has all that was asked for")
    return replace(plan, tasks=tuple(chosen))
