"""Parts of the official data sets, in their official layouts and by links: the data's own preparation takes it on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from dynconv_plugins.datasets.preparation import RECORD
from dynconv_plugins.datasets.tiny_imagenet import KIND
from dynconv_plugins.errors import UserError

IMAGES = {".jpeg", ".jpg", ".png"}


def tiny_imagenet(source: Path, out: Path, classes: int, train: int, test: int) -> Path:
    """Links the first `classes` classes by name, with `train` and `test` images each.

    Either of the official layout or of the one that ``dynconv data tiny-imagenet`` makes, ``train/<wnid>/*.JPEG`` and
    ``val/<wnid>/*.JPEG``; the same images of both.
    """
    _clear(out)
    wnids = sorted(p.name for p in (source / "train").iterdir() if p.is_dir())[:classes]
    table = source / "val" / "val_annotations.txt"
    prepared = not table.is_file()
    for wnid in wnids:
        folder = source / "train" / wnid / ("" if prepared else "images")
        chosen = sorted(p for p in folder.glob("*") if p.suffix.lower() in IMAGES)[:train]
        _link(chosen, out / "train" / wnid / ("" if prepared else "images"))
        if prepared:
            # val_9 comes before val_10, as in the official list.
            tested = sorted((source / "val" / wnid).glob("*"), key=lambda p: (len(p.name), p.name))[:test]
            if not tested:
                raise UserError(f"{source} has neither val/val_annotations.txt nor images in val/{wnid}")
            _link(tested, out / "val" / wnid)
            continue
        boxes = source / "train" / wnid / f"{wnid}_boxes.txt"
        if boxes.is_file():
            names = {p.name for p in chosen}
            _keep(boxes, out / "train" / wnid / boxes.name, lambda line, n=names: line.split("\t")[0] in n)
    if prepared:
        record = source / RECORD
        words = json.loads(record.read_text()).get(KIND, {}).get("classes", {}) if record.is_file() else {}
        (out / "words.txt").write_text("".join(f"{w}\t{words.get(w, w)}\n" for w in wnids))
        return out
    left, lines = dict.fromkeys(wnids, test), []
    for line in table.read_text().splitlines():
        wnid = line.split("\t")[1] if "\t" in line else ""
        if left.get(wnid, 0) > 0:
            left[wnid] -= 1
            lines.append(line)
    _link((source / "val" / "images" / line.split("\t")[0] for line in lines), out / "val" / "images")
    (out / "val" / "val_annotations.txt").write_text("".join(f"{line}\n" for line in lines))
    (out / "wnids.txt").write_text("".join(f"{w}\n" for w in wnids))
    words = source / "words.txt"
    if words.is_file():
        _keep(words, out / "words.txt", lambda line: line.split("\t")[0] in wnids)
    return out


def voc2012(source: Path, out: Path, train: int, test: int) -> Path:
    """Links the first `train` and `test` images of the official segmentation lists, with their masks."""
    _clear(out)
    lists = source / "ImageSets" / "Segmentation"
    target = out / "VOCdevkit" / "VOC2012"
    (target / "ImageSets" / "Segmentation").mkdir(parents=True)
    kept = []
    for split, count in (("train", train), ("val", test)):
        names = (lists / f"{split}.txt").read_text().split()[:count]
        kept += names
        (target / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))
    (target / "ImageSets" / "Segmentation" / "trainval.txt").write_text("".join(f"{n}\n" for n in kept))
    _link((source / "JPEGImages" / f"{n}.jpg" for n in kept), target / "JPEGImages")
    _link((source / "SegmentationClass" / f"{n}.png" for n in kept), target / "SegmentationClass")
    return target


def fingerprint(prepared: Path) -> str:
    """Changes with the files that a prepared folder links to."""
    files = sorted(p for p in prepared.rglob("*") if p.is_symlink())
    told = "".join(f"{p.relative_to(prepared)} {p.resolve()}\n" for p in files)
    return hashlib.sha256(told.encode()).hexdigest()


def _clear(folder: Path) -> None:
    """Empties a folder that an earlier call made: links, and lists of them."""
    for path in folder.rglob("*"):
        if not (path.is_symlink() or path.is_dir() or path.suffix == ".txt"):
            raise UserError(f"{folder} holds other files, e.g. {path.name}; choose another --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _link(paths: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        # A file that the lists name and that is not there: the preparation after this says so in its own words.
        if path.exists():
            os.symlink(path.resolve(), folder / path.name)


def _keep(source: Path, target: Path, wanted) -> None:
    target.write_text("".join(f"{line}\n" for line in source.read_text().splitlines() if wanted(line)))
