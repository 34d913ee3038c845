"""The data of a segmentation task: VOC 2012, or the built-in diatoms in its layout, and three lists of their images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ... import datasets
from ...errors import UserError
from ...writing import write_text
from ..cells import digest
from ..tasks import Task
from .common import Data, contents, divided, only_training, settings

DATA = {"name": None, "classes": None, "train": None, "test": None, "holdout": 0.1, "score_on": "test"}
NAMES, HEADS = ("voc2012", "diatoms"), ("fpn", "deeplabv3plus")
OPTIONS = {"pixels": 128, "epochs": None, "batch_size": None, "backbone_checkpoint": None}
WHOLE = 2913  # images of the official lists, train and val


def prepare(task: Task, found: Mapping[str, Path], folder: Path) -> Data:
    """Links the images and masks, and writes three lists: the validation part is taken from the training images."""
    given = settings(task.data, DATA, f"task {task.name}, data")
    options = settings(task.options, OPTIONS, f"task {task.name}, options")
    tuning = only_training(given, f"task {task.name}, data")
    unknown = next((n for n in task.networks if n not in HEADS), None)
    if unknown or given["name"] not in NAMES:
        what = f"networks are heads, {' or '.join(HEADS)}" if unknown else f"data is one of {', '.join(NAMES)}"
        raise UserError(f"task {task.name}: {what}, not {unknown or given['name']}")
    real = given["name"] == "voc2012"
    if real and "voc2012" not in found:
        raise UserError("no VOC 2012 found: set DYNCONV_DATA or --data, or get it by 'dynconv data voc2012'")
    if real and given["classes"]:
        raise UserError(f"task {task.name}, data: VOC 2012 has the classes that it has; remove classes")
    if real:
        source, classes = Path(found["voc2012"]), 20
    else:
        classes = given["classes"] or 5
        sizes = {"classes": classes, "train": given["train"] or 40, "test": given["test"] or 10}
        source = datasets.diatoms.make(folder / "diatoms", **sizes) / datasets.diatoms.VOC
    lists = source / "ImageSets" / "Segmentation"
    train, test = ((lists / f"{split}.txt").read_text().split() for split in ("train", "val"))
    if real:
        train, test = train[: given["train"]], test[: given["test"]]
    datasets.voc2012.prepare(source, folder / "masks")
    kept, held, test = divided(train, test, float(given["holdout"]), tuning)
    for name, part in (("train", kept), ("valid", held), ("test", test)):
        write_text(folder / f"{name}.txt", "".join(f"{line}\n" for line in part))
    whole = "VOC 2012" if len(train) + len(test) >= WHOLE else "VOC 2012 subset"
    name = f"{whole}, {options['pixels']} px" if real else f"diatoms, {options['pixels']} px"
    name += ", training images only" if tuning else ""
    told = digest("masks", given["name"], kept, held, test), contents(_pairs(source, kept + held + test))
    counts = (len(kept), len(held), len(test), classes + 1)
    return Data(name, folder / "masks", *counts, "images", real, {"pixels": options["pixels"]}, *told, tuning)


def _pairs(source: Path, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Every image and mask by its place in the data set."""
    for name in names:
        for place in (f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"):
            yield place, source / place
