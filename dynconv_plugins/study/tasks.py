"""One task of a plan: its data, recipe, networks and models, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from .. import registry
from ..errors import UnknownName, UserError

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


def read_tasks(key: str, raw: Any, plan: str) -> list[Task]:
    """A task, or one for each of its recipes: what is trained in another way is another task."""
    if not isinstance(raw, Mapping) or isinstance(raw.get("recipe"), str) or not raw.get("recipe"):
        return [_task(key, raw, plan)]
    recipes = _listed(raw["recipe"], f"plan {plan}, task {key}", "recipe")
    return [_task(f"{key}-{recipe}", {**raw, "recipe": recipe}, plan) for recipe in recipes]


def _task(key: str, raw: Any, plan: str) -> Task:
    place = f"plan {plan}, task {key}"
    if not isinstance(raw, Mapping):
        raise UserError(f"{place}: it needs host, data, networks, models and recipe")
    known(raw, {f.name for f in fields(Task)} - {"name", "chosen"}, place)
    missing = [k for k in ("host", "data", "networks", "models", "recipe") if not raw.get(k)]
    if missing:
        raise UserError(f"{place}: {' and '.join(missing)} missing")
    if not key.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"{place}: a task's name becomes a folder's; use letters, digits, - and _")
    if raw["host"] not in HOSTS:
        raise UnknownName("host", str(raw["host"]), HOSTS)
    return Task(
        name=key,
        host=raw["host"],
        data=_data(raw["data"], place),
        networks=_networks(raw["networks"], place),
        models=_models(raw["models"], place),
        recipe=str(raw["recipe"]),
        options=_options(raw.get("options", {}), place),
        about=str(raw.get("about") or "").strip(),
        **_counts(raw, place),
    )


def _mapping(value: Any, place: str, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: {what} takes a mapping, not {value!r}")
    return dict(value)


def _data(raw: Any, place: str) -> dict[str, Any]:
    data = _mapping({"name": raw} if isinstance(raw, str) else raw, place, "data")
    if "name" not in data:
        raise UserError(f"{place}: data has no name")
    return data


def _options(raw: Any, place: str) -> dict[str, Any]:
    options = _mapping(raw, place, "options")
    if "seed" in options:
        raise UserError(f"{place}: the seed is the cell's own; say how many with seeds")
    return options


def _counts(raw: Mapping[str, Any], place: str) -> dict[str, int]:
    """Those of seeds, folds and processes that are given."""
    counts = {what: raw[what] for what in ("seeds", "folds", "processes") if raw.get(what) is not None}
    for what, value in counts.items():
        least = 2 if what == "folds" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{place}: {what} must be a whole number of at least {least}")
    if "folds" in counts and raw["host"] != "tsai":
        raise UserError(f"{place}: folds are for tsai; {raw['host']} has seeds")
    if "folds" in counts and "seeds" in counts:
        raise UserError(f"{place}: seeds or folds, not both")
    return counts


def _networks(raw: Any, place: str) -> tuple[str, ...]:
    networks = tuple(str(n) for n in _listed(raw, place, "networks"))
    if len(set(networks)) < len(networks):
        raise UserError(f"{place}: a network is named twice: {', '.join(networks)}")
    return networks


def _models(raw: Any, place: str) -> tuple[Model, ...]:
    models = tuple(_model(m, place) for m in _listed(raw, place, "models"))
    labels = [m.label for m in models]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(f"{place}: two models are called {twice}; give one of them a label")
    return models


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
    if not is_folder(label):
        raise UserError(f"{place}: the label {label!r} becomes a folder's name; use letters, digits and -_+.")
    return Model(operator, label, raw.get("where"), arguments)


def _listed(value: Any, place: str, what: str) -> Sequence[Any]:
    if isinstance(value, (str, Mapping)):
        return [value]
    if not isinstance(value, Sequence):
        raise UserError(f"{place}: {what} takes a list, not {value!r}")
    return value


def known(raw: Mapping, allowed: set[str], place: str) -> None:
    """Refuses what nobody would read.

    Raises:
        UnknownName: With the nearest of `allowed`.
    """
    for key in raw:
        if key not in allowed:
            raise UnknownName(f"entry of {place}:", str(key), allowed)


def is_folder(name: str) -> bool:
    """Whether this can be the name of a folder everywhere."""
    return name.strip(".") != "" and all(c.isalnum() or c in "-_+." for c in name)
