"""Time series: ``python -m tsai_models train``, on a UCR data set or the built-in diatoms."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ... import datasets
from ...errors import UnknownName, UserError
from ...writing import write_text
from ..cells import RUN, Cell, digest
from ..tasks import STATIC, Task
from .common import PYTHON, Data, Sample, flags, held_out, only_training, per_process, settings

SCORED_BY_TRAINER = True
DATA = {"name": None, "classes": None, "train": None, "test": None, "holdout": 0.25, "score_on": "test"}
BUILT_IN = "Diatoms"
# A network's name in plans -> the architecture of tsai_models whose twin is the network itself.
DYNAMIC = {
    "FCN": "ODConvFCN",
    "ResNet": "ODConvResNet",
    "InceptionTime": "ODConvInception",
    "Net1": "Net1_DCNN",
    "Net2": "Net2_DCNN",
}


def prepare(task: Task, found: Mapping[str, Path], folder: Path) -> Data:
    """Finds the series; the trainer itself holds a part out where its recipe says so. While a recipe is being chosen,
    the training series are divided, or all of them folded, as a data set of their own."""
    for network in task.networks:
        if network not in DYNAMIC:
            raise UnknownName("network of tsai:", network, DYNAMIC)
    given = settings(task.data, DATA, f"task {task.name}, data")
    name = str(given["name"])
    idle = [key for key in ("classes", "train", "test") if given[key] is not None]
    if name != BUILT_IN and idle:
        raise UserError(f"task {task.name}, data: {name} is as large as it is; remove {' and '.join(idle)}")
    if "holdout" in task.data and given["score_on"] == "test":
        raise UserError(f"task {task.name}, data: holdout is for score_on: held-out; a recipe's own is one of options")
    if name == BUILT_IN:
        sizes = {"classes": given["classes"] or 5, "train": given["train"] or 40, "test": given["test"] or 10}
        root = datasets.diatoms.make(folder / "diatoms", **sizes) / "UCR"
    elif "ucr" in found:
        root = Path(found["ucr"])
    else:
        raise UserError(f"no UCR archive found for {name}: set DYNCONV_DATA or --data, or use 'dynconv data ucr'")
    if tuning := only_training(given, f"task {task.name}, data"):
        root = _training_only(root, name, float(given["holdout"]), folder / "training-only")
    X, y, (train, test) = datasets.ucr.load(root, name)
    folds = task.folds
    parts = (len(train), len(test)) if folds is None else (len(y) - len(y) // folds, len(y) // folds)
    held = round({**recipe(task.recipe), **task.options}["holdout"] * parts[0])  # by the trainer
    shape = {"length": int(X.shape[2]), "variables": int(X.shape[1])}
    shape |= {"dataset": name} if tuning else {}
    split = [given["holdout"]] if tuning else []
    fingerprint = digest("series", name, X.shape, float(np.nan_to_num(X).sum()), sorted(y.tolist()), *split)
    held_in = hashlib.sha256(X.tobytes() + json.dumps([y.tolist(), len(train)]).encode()).hexdigest()
    told = f"{name}, training series only" if tuning else name
    counts = (parts[0] - held, held, parts[1], len(np.unique(y)))
    return Data(told, root, *counts, "series", name != BUILT_IN, shape, fingerprint, held_in, tuning)


def _training_only(root: Path, name: str, holdout: float, out: Path) -> Path:
    """A data set of the official training series alone: every so-manieth of each class takes the test series' place."""
    X, y, (train, _) = datasets.ucr.load(root, name)
    ordered = sorted(train, key=lambda i: y[i])
    parts = held_out(ordered, max(1, round(holdout * len(ordered))))
    (out / name).mkdir(parents=True, exist_ok=True)
    for part, chosen in zip(("TRAIN", "TEST"), parts, strict=True):
        lines = ("\t".join([y[i], *(repr(float(v)) for v in X[i, 0])]) for i in chosen)
        write_text(out / name / f"{name}_{part}.tsv", "".join(f"{line}\n" for line in lines))
    return out


def recipe(name: str) -> dict[str, Any]:
    from dataclasses import asdict

    from tsai_models.recipes import RECIPES

    if name not in RECIPES:
        raise UnknownName("recipe of tsai:", name, RECIPES)
    return asdict(RECIPES[name])


def _values(record: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with what the plan changes in it."""
    return {**recipe(record["recipe"]), **record["options"]}


def command(cell: Cell, data: Data, folder: Path) -> tuple[str, ...]:
    words = [PYTHON, "-m", "tsai_models", "train", "--arch", DYNAMIC[cell.network]]
    words += ["--dataset", data.options.get("dataset", data.name)]
    words += ["--data", str(data.path), "--recipe", cell.task.recipe]
    words += ["--static"] if cell.model.operator == STATIC else ["--operator", cell.model.operator]
    words += [] if cell.model.where is None else ["--where", cell.model.where]
    for name, value in cell.model.arguments.items():
        words += ["--operator-arg", f"{name}={value}"]
    options = dict(cell.task.options)
    if cell.task.processes > 1:
        options["batch_size"] = options.get("batch_size", recipe(cell.task.recipe)["batch_size"])
    if "batch_size" in options:
        options["batch_size"] = per_process(options["batch_size"], cell.task.processes)
    split = ["--seed", str(cell.seed)]
    split += [] if cell.fold is None else ["--folds", str(cell.task.folds), "--fold", str(cell.fold)]
    return (*words, *flags(options), *split, "--out", str(folder / RUN))


def check(command: Sequence[str]) -> None:
    from tsai_models.__main__ import parser

    parser().parse_args(command[command.index("train") :])


def settle(folder: Path, record: Mapping[str, Any]) -> None:
    """A command that was killed within its only run has left nothing to go on from; damaged results stop it."""
    results = folder / RUN / "results.json"
    if results.is_file() and not record.get("trained"):
        try:
            json.loads(results.read_text())
        except ValueError:
            shutil.rmtree(folder / RUN)


def _history(folder: Path) -> list[dict[str, str]]:
    path = folder / RUN / "history.csv"
    if not path.is_file():
        return []
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def progress(folder: Path, record: Mapping[str, Any]) -> tuple[float, float, str]:
    rows = _history(folder)  # written when the run is complete
    total = _values(record)["epochs"]
    if not rows:
        path = folder / RUN / "progress.csv"  # of the stage that is being trained
        rows = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    return len(rows), total, f"loss {float(rows[-1]['train_loss']):.3f}" if rows else ""


def curve(folder: Path) -> dict[str, Any]:
    rows = [row for row in _history(folder) if row.get("stage", "main") == "main"]
    columns = {"train_loss": "train_loss", "valid_loss": "valid_loss", "valid_score": "accuracy"}
    made = {k: [float(row[v]) if row.get(v) else None for row in rows] for k, v in columns.items()}
    return {"unit": "epoch", "steps": [int(row["epoch"]) for row in rows], **made}


def build(record: Mapping[str, Any]) -> nn.Module:
    from tsai_models.archs import ARCHS
    from tsai_models.archs import build as make

    entry, shape = ARCHS[DYNAMIC[record["network"]]], record["data"]["options"]
    options: dict[str, Any] = {}
    if record["operator"] != STATIC:
        placed = {} if record["where"] is None else {"where": record["where"]}
        options = {"operator": record["operator"], **placed, "operator_args": dict(record["arguments"])}
    cls = entry.twin if record["operator"] == STATIC else entry.cls
    return make(cls, _variables(record), record["data"]["classes"], shape["length"], **options).eval()


def load(folder: Path) -> nn.Module:
    """The network with the weights that the trainer has kept."""
    record = json.loads((folder / "cell.json").read_text())
    model = build(record)
    model.load_state_dict(torch.load(folder / RUN / "model.pth", map_location="cpu", weights_only=True))
    return model.eval()


def amount(record: Mapping[str, Any]) -> tuple[int, int]:
    """Batch size and number of training steps, those of a twin that is trained first included."""
    values = _values(record)
    stages = 2 if record["network"].startswith("Net") else 1
    return values["batch_size"], stages * values["epochs"] * max(1, record["data"]["train"] // values["batch_size"])


def example(record: Mapping[str, Any], batch: int) -> torch.Tensor:
    shape = record["data"]["options"]
    return torch.randn(batch, _variables(record), shape["length"])


def differences(record: Mapping[str, Any]) -> int:
    """How many orders of differences the recipe adds to the series as further variables."""
    return _values(record)["differences"]


def _variables(record: Mapping[str, Any]) -> int:
    """What the network reads: the series, and its differences where the recipe adds them as further variables."""
    return record["data"]["options"]["variables"] * (1 + differences(record))


def metrics(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """What the trainer has measured on the test series, once, with the kept weights."""
    row = json.loads((folder / RUN / "results.json").read_text())["rows"][0]
    made = curve(folder)
    stored, per_class = folder / RUN / "predictions.npz", None
    if stored.is_file():
        truth, predicted, names = _predictions(stored)
        np.savez_compressed(folder / "predictions.npz", truth=truth, predicted=predicted)
        present = [i for i in range(len(names)) if (truth == i).any()]
        per_class = {names[i]: float((predicted[truth == i] == i).mean()) for i in present}
    return {
        "score": row["accuracy"],
        "loss": row["loss"],
        "per_class": per_class,
        "epochs": len(made["steps"]),
        "kept_epoch": row.get("kept_epoch"),
        "curve": made,
        "predictions": "predictions.npz" if stored.is_file() else None,
    }


def _predictions(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    with np.load(path, allow_pickle=False) as stored:
        keys = {k.partition("_")[0]: k for k in stored.files}
        truth, predicted = stored[keys["truth"]], stored[keys["predicted"]]
        names = [str(n) for n in stored[keys["classes"]]]
    return truth, predicted, names


def samples(folder: Path, n: int) -> list[Sample]:
    """The first test series of each of the first `n` classes that have one, as the network takes them."""
    from tsai_models.data import Series, splits, standardised, with_differences

    record = json.loads((folder / "cell.json").read_text())
    stored = record["data"]
    X, y, official = datasets.ucr.load(Path(stored["path"]), stored["options"].get("dataset", stored["name"]))
    folds = splits(Series(X, y, official), record["folds"], record["folds"] or 1)
    test = folds[record["fold"] or 0][1]  # of a fold, those that this network was not trained on
    names = sorted({str(y[i]) for i in test}, key=lambda name: (len(name), name))[:n]
    chosen = [next(i for i in test if y[i] == name) for name in names]
    inputs = standardised(with_differences(X[chosen], differences(record)))
    stored = folder / RUN / "predictions.npz"
    known = tuple(f"class {name}" for name in _predictions(stored)[2]) if stored.is_file() else ()
    pairs = zip(chosen, inputs, strict=True)
    return [Sample(torch.from_numpy(x[None]), x[0], f"class {y[i]}", names=known) for i, x in pairs]
