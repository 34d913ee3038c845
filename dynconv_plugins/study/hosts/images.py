"""Images: ``python -m timm_models train``, on Tiny ImageNet or the built-in diatoms."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from ... import datasets
from ...demo import subset
from ...errors import UserError
from ...writing import write_json
from ..cells import RUN, Cell, digest
from ..tasks import Task
from .common import PYTHON, Data, Sample, contents, divided, flags, only_training, per_process, settings

SCORED_BY_TRAINER = False
DATA = {"name": None, "classes": None, "train": None, "test": None, "holdout": 0.1, "score_on": "test"}
NAMES = ("tiny-imagenet", "diatoms")


def prepare(task: Task, found: Mapping[str, Path], folder: Path) -> Data:
    """Links ``train/``, ``val/`` (held out of the training images) and ``test/`` (the official validation images)."""
    given = settings(task.data, DATA, f"task {task.name}, data")
    tuning = only_training(given, f"task {task.name}, data")
    if given["name"] not in NAMES:
        raise UserError(f"task {task.name}: data is one of {', '.join(NAMES)}, not {given['name']}")
    if not isinstance(task.options.get("model_kwargs", {}), Mapping):
        raise UserError(f"task {task.name}, options: model_kwargs takes a mapping, such as {{small_stem: false}}")
    real = given["name"] == "tiny-imagenet"
    if real and "tiny-imagenet" not in found:
        raise UserError("no Tiny ImageNet found: set DYNCONV_DATA or --data, or get it by 'dynconv data tiny-imagenet'")
    if real:
        source = Path(found["tiny-imagenet"])
    else:
        sizes = {"classes": given["classes"] or 5, "train": given["train"] or 40, "test": given["test"] or 10}
        source = datasets.diatoms.make(folder / "diatoms", **sizes) / datasets.diatoms.TINY
    limits = (given["classes"] or 10**6, given["train"] or 10**6, given["test"] or 10**6)
    listed = [datasets.files.listing(source / part) for part in ("train", "val")]
    asked = digest(str(source.resolve()), *limits, given["holdout"], listed, tuning)
    done = folder / "split.json"
    if not (done.is_file() and _read(done).get("asked") == asked):
        done.unlink(missing_ok=True)  # what is half made is nobody's
        part = subset.tiny_imagenet(source, folder / "part", *limits)
        datasets.tiny_imagenet.prepare(part, folder / "official")
        counts = _split(folder / "official", folder / "images", float(given["holdout"]), tuning)
        # Where the images lie is none of a cell's inputs.
        paths = {str(p.relative_to(folder)): p for p in (folder / "images").rglob("*.*")}
        told = {"fingerprint": digest("images", sorted(paths)), "contents": contents(paths.items())}
        write_json(done, {"asked": asked, **told, "counts": counts, "words": _words(part)})
    split = _read(done)
    counts, told = split["counts"], {key: split[key] for key in ("fingerprint", "contents")}
    name = f"Tiny ImageNet, {counts['classes']} classes" if real else f"diatoms, {counts['classes']} shapes"
    name += ", training images only" if tuning else ""
    parts = {k: counts[k] for k in ("train", "valid", "test", "classes")}
    return Data(name, folder / "images", **parts, unit="images", real=real, options={}, **told, tuning=tuning)


def _split(source: Path, out: Path, holdout: float, tuning: bool) -> dict[str, int]:
    """Two parts of ``source/train`` and the whole of ``source/val``, or else a third part, by links."""
    shutil.rmtree(out, ignore_errors=True)
    counts = {"train": 0, "valid": 0, "test": 0, "classes": 0}
    for folder in sorted(p for p in (source / "train").iterdir() if p.is_dir()):
        images, official = (sorted((source / part / folder.name).iterdir()) for part in ("train", "val"))
        kept, held, tested = divided(images, official, holdout, tuning)
        counts["classes"] += 1
        for part, what, paths in (("train", "train", kept), ("val", "valid", held), ("test", "test", tested)):
            (out / part / folder.name).mkdir(parents=True)
            counts[what] += len(paths)
            for path in paths:
                os.symlink(path.resolve(), out / part / folder.name / path.name)
    return counts


def recipe(name: str) -> dict[str, Any]:
    from timm_models.train.args import RECIPES, recipes

    if name not in recipes():
        raise UserError(f"timm has no recipe {name}: {', '.join(recipes())}")
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text())


def model_arguments(cell: Cell) -> dict[str, Any]:
    """``--model-kwargs`` of the cell: the recipe's, the plan's, the placement and the operator's arguments."""
    given = {**recipe(cell.task.recipe).get("model_kwargs", {}), **cell.task.options.get("model_kwargs", {})}
    placed = {} if cell.model.where is None else {"where": cell.model.where}
    return {**given, **placed, **cell.model.arguments}


def command(cell: Cell, data: Data, folder: Path) -> tuple[str, ...]:
    values = {**recipe(cell.task.recipe), **cell.task.options}
    options = {k: v for k, v in cell.task.options.items() if k not in ("model_kwargs", "batch_size")}
    options |= {"batch_size": per_process(values["batch_size"], cell.task.processes)}
    if arguments := model_arguments(cell):
        options["model_kwargs"] = arguments
    options = {"workers": 0, **options}
    words = [PYTHON, "-m", "timm_models", "train", str(data.path), "-c", cell.task.recipe]
    words += ["--model", f"{cell.network}_{cell.model.operator}", "--seed", str(cell.seed), *flags(options)]
    words += ["--checkpoint-hist", "1", "--recovery-interval", "200", "--resume", "auto"]
    return (*words, "--output", str(folder), "--experiment", RUN)


def check(command: Sequence[str]) -> None:
    from timm_models.train.args import parse

    parse(command[command.index("train") + 1 :])


def settle(folder: Path, record: Mapping[str, Any]) -> None:
    """Nothing: the command line says all."""


def _rows(folder: Path) -> list[dict[str, float]]:
    path = folder / RUN / "summary.csv"
    if not path.is_file():
        return []
    with open(path, newline="") as f:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(f)]


def progress(folder: Path, record: Mapping[str, Any]) -> tuple[float, float, str]:
    values = {**recipe(record["recipe"]), **record["options"]}
    rows = _rows(folder)
    note = f"loss {rows[-1]['train_loss']:.3f}, valid {rows[-1]['eval_top1']:.1f}%" if rows else ""
    return len(rows), values["epochs"], note


def curve(folder: Path) -> dict[str, Any]:
    rows = _rows(folder)
    columns = {"train_loss": "train_loss", "valid_loss": "eval_loss", "valid_score": "eval_top1"}
    made = {ours: [row.get(theirs) for row in rows] for ours, theirs in columns.items()}
    made["valid_score"] = [None if v is None else v / 100 for v in made["valid_score"]]
    return {"unit": "epoch", "steps": [row["epoch"] + 1 for row in rows], **made}


def build(record: Mapping[str, Any]) -> nn.Module:
    import timm

    import timm_models  # noqa: F401 - registers the models

    values = {**recipe(record["recipe"]), **record["options"]}
    given = {**recipe(record["recipe"]).get("model_kwargs", {}), **record["options"].get("model_kwargs", {})}
    placed = {} if record["where"] is None else {"where": record["where"]}
    name, classes = f"{record['network']}_{record['operator']}", record["data"]["classes"]
    dropout = {"drop_rate": values.get("drop", 0.0)}
    return timm.create_model(name, num_classes=classes, **dropout, **given, **placed, **record["arguments"]).eval()


def load(folder: Path) -> nn.Module:
    """The network with the weights that count: the best of the validation part where the recipe stops early, else the
    last, and their average where there is one."""
    stored = _kept(folder)
    model = build(_read(folder / "cell.json"))
    model.load_state_dict(stored.get("state_dict_ema", stored["state_dict"]))
    return model.eval()


def _kept(folder: Path) -> dict[str, Any]:
    """The checkpoint that counts."""
    args = yaml.safe_load((folder / RUN / "args.yaml").read_text())
    path = folder / RUN / ("model_best.pth.tar" if args["early_stop"] > 0 else "last.pth.tar")
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def amount(record: Mapping[str, Any]) -> tuple[int, int]:
    """Batch size and number of training steps."""
    values = {**recipe(record["recipe"]), **record["options"]}
    return values["batch_size"], values["epochs"] * (record["data"]["train"] // values["batch_size"])


def example(record: Mapping[str, Any], batch: int) -> torch.Tensor:
    values = {**recipe(record["recipe"]), **record["options"]}
    return torch.randn(batch, *values["input_size"])


@torch.inference_mode()
def metrics(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    model = load(folder)
    truth, predicted, loss = [], [], 0.0
    for x, y in _loader(folder, model):
        out = model(x)
        loss += nn.functional.cross_entropy(out, y, reduction="sum").item()
        truth.append(y)
        predicted.append(out.argmax(1))
    truth, predicted = (torch.cat(part).numpy() for part in (truth, predicted))
    np.savez_compressed(folder / "predictions.npz", truth=truth, predicted=predicted)
    names = sorted(p.name for p in (Path(record["data"]["path"]) / "test").iterdir())
    words = _read(Path(record["data"]["path"]).parent / "split.json")["words"]
    return {
        "score": float((truth == predicted).mean()),
        "loss": loss / len(truth),
        "per_class": {words.get(n, n): float((predicted[truth == i] == i).mean()) for i, n in enumerate(names)},
        "epochs": len(_rows(folder)),
        "kept_epoch": _kept(folder)["epoch"] + 1,
        "curve": curve(folder),
        "predictions": "predictions.npz",
    }


def _loader(folder: Path, model: nn.Module):
    """timm's own validation of the test images, as the run's trainer does it with its validation part."""
    from timm.data import ImageDataset, create_loader, resolve_data_config

    record, args = _read(folder / "cell.json"), yaml.safe_load((folder / RUN / "args.yaml").read_text())
    config = resolve_data_config(args, model=model)
    wanted = {k: config[k] for k in ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")}
    images = ImageDataset(str(Path(record["data"]["path"]) / "test"))
    return create_loader(
        images, batch_size=100, use_prefetcher=False, num_workers=0, device=torch.device("cpu"), **wanted
    )


def samples(folder: Path, n: int) -> list[Sample]:
    """The first test image of each of the first `n` classes, as the network takes it."""
    from PIL import Image

    model = build(record := _read(folder / "cell.json"))
    loader = _loader(folder, model)
    root, words = Path(record["data"]["path"]), _read(Path(record["data"]["path"]).parent / "split.json")["words"]
    made: list[Sample] = []
    names = sorted(p.name for p in (root / "test").iterdir())
    for path, _ in loader.dataset.reader.samples:
        name = Path(path).parent.name
        if name in names[len(made) : len(made) + 1] and len(made) < n:
            image = Image.open(path).convert("RGB")
            x = loader.dataset.transform(image)[None]
            size = (x.shape[3], x.shape[2])
            shown = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
            made.append(Sample(x, shown, words.get(name, name), names=tuple(words.get(n, n) for n in names)))
    return made


def _words(part: Path) -> dict[str, str]:
    """The first word of each class's name."""
    path = part / "words.txt"
    lines = (line.split("\t") for line in path.read_text().splitlines()) if path.is_file() else ()
    return {line[0]: line[1].split(",")[0] for line in lines if len(line) > 1}


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
