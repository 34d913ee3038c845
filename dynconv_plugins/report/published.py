"""What the study's paper and others report, and why ours may not be comparable with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from .records import STATIC, Model, Task

EPOCHS = 30


@dataclass(frozen=True)
class Published:
    """A number of the study's paper beside one of ours."""

    name: str
    score: float
    sd: float | None = None
    gflops: float | None = None


@cache
def _all() -> Mapping[str, Any]:
    import yaml

    return yaml.safe_load((files("dynconv_plugins.report") / "published.yaml").read_text(encoding="utf-8"))


def _bare(task: Task) -> str:
    return "".join(c for c in str(task.data("name") or "").lower() if c.isalnum())


def entry_of(task: Task) -> Mapping[str, Any] | None:
    """The paper's table for the task's data set and kind of score; None where it has none or recipes are tuned."""
    if task.tuning:
        return None
    for entry in _all()["tasks"]:
        if entry["match"] in _bare(task) and entry["score_name"] == task.score_name:
            return entry
    return None


def published(task: Task, model: Model) -> Published | None:
    """The paper's row for a model; for series, of its two networks and under folds only."""
    entry = entry_of(task)
    if entry is None or (entry.get("folded") and not task.folded):
        return None
    if "networks" in entry and model.network not in entry["networks"]:
        return None
    if changed(model):
        return None
    rows = entry["models"]
    row = rows.get(model.operator) or (rows.get("dynamic") if model.operator != STATIC else None)
    return Published(row["name"], row["score"], row.get("sd"), row.get("gflops")) if row else None


def changed(model: Model) -> bool:
    """Whether a model is not the published one: it has arguments or a placement of its own."""
    return any(c.record.get("arguments") or c.record.get("where") for c in model.cells.values())


def left_open(task: Task) -> str:
    """What the paper does not say of its numbers, so that ours beside them are a choice; empty where there are none."""
    entry = entry_of(task)
    return str(entry.get("open", "")) if entry and any(published(task, m) for m in task.models.values()) else ""


def source(task: Task) -> str:
    """``"<paper>, Table 3"``; empty where none of its numbers stands beside ours."""
    shown = any(published(task, m) for m in task.models.values())
    return f"{_all()['study']}, {entry_of(task)['table']}" if shown else ""


def pixels(task: Task) -> int | None:
    """Side of the input images, from the data's options or the measured input."""
    given = (task.data("options") or {}).get("pixels")
    if isinstance(given, int):
        return given
    sizes = [m.costs.input_size for m in task.models.values() if m.costs and len(m.costs.input_size) == 4]
    return int(sizes[0][-1]) if sizes else None


def not_comparable(task: Task) -> str:
    """Why the paper's numbers cannot be compared with ours, derived from the cells' data; empty where they can."""
    entry = entry_of(task)
    if entry is None:
        return ""
    full, reasons = entry["full"], []
    for what, words in (("classes", "classes"), ("train", "training samples")):
        ours = task.data(what)
        # A part held out for validation leaves a little fewer; a tenth less is no other data set.
        if isinstance(ours, int) and full[what] and ours < 0.85 * full[what]:
            reasons.append(f"{ours:,} of {full[what]:,} {words}")
    if (side := pixels(task)) and "pixels" in full and side != full["pixels"]:
        theirs = f"instead of {full['pixels']}" if full["pixels"] else "where it does not tell its own"
        reasons.append(f"{side} px {theirs}")
    if entry.get("folded") and not task.folded:
        reasons.append("the official split instead of 10 folds")
    others = [n for n in task.networks if n not in entry.get("networks", task.networks)]
    if others:
        reasons.append(f"its networks were {' and '.join(entry['networks'])}, not {', '.join(others)}")
    # Table 1 is the study's recipe; ours of that name end in it.
    options = task.fact("options") or {}
    recipe, epochs = str(task.fact("recipe")), options.get("epochs")
    if recipe and not recipe.endswith("study"):
        reasons.append(f"the recipe {recipe} instead of the paper's")
    if isinstance(epochs, int) and epochs < EPOCHS:
        reasons.append(f"{epochs} of its {EPOCHS} epochs")
    if options.get("backbone_checkpoint"):
        reasons.append("networks that start from a backbone trained before, of which it tells nothing")
    if entry.get("remark") and source(task):
        reasons.append(entry["remark"])
    return f"Not comparable with the paper's numbers: {'; '.join(reasons)}." if reasons else ""


def references(task: Task) -> list[Mapping[str, Any]]:
    """What others report for the task's data set."""
    name = "mIoU" if "voc" in _bare(task) else "accuracy"
    found = [r for r in _all()["references"] if r["match"] in _bare(task) and name == task.score_name]
    return [] if task.tuning else [*_ablations(task), *found]


def _ablations(task: Task) -> list[Mapping[str, Any]]:
    """A2D2C's tables that vary what the task varies."""
    found = []
    for table in _all()["ablations"]:
        varied = [_varied(row) for row in table["rows"] if "operator" in row]
        ours = [(m.operator, *_settings(m)) for m in task.models.values() if m.network == table["network"]]
        if any(one in varied for one in ours):
            told = {"under": table["under"], "source": f"A2D2C, {table['table']}"}
            found += [{"name": row["name"], "score": row["score"], **told} for row in table["rows"]]
    return found


def _settings(model: Model) -> tuple[str | None, dict[str, Any]]:
    record = next((c.record for c in model.cells.values() if c.record), {})
    return record.get("where"), dict(record.get("arguments") or {})


def counts(model: Model) -> Mapping[str, Any] | None:
    """Published parameters and multiply-adds of a model at 224 px with 1000 classes; of a changed one, those of A2D2C's
    ablations, which have some."""
    if not changed(model):
        return _all()["counts"].get(model.network, {}).get(model.operator)
    rows = (row for table in _all()["ablations"] if table["network"] == model.network for row in table["rows"])
    return next((row for row in rows if "params" in row and _varied(row) == (model.operator, *_settings(model))), None)


def _varied(row: Mapping[str, Any]) -> tuple[str | None, str | None, Mapping[str, Any]]:
    """What a row of an ablation is of: operator, placement, arguments."""
    return row.get("operator"), row.get("where"), row.get("arguments", {})


def folds() -> Mapping[str, Mapping[str, list[float]]]:
    """The paper's Table 4a."""
    return _all()["folds"]
