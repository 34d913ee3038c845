"""Parts of the official data sets, in their official layouts and by links: the data's own preparation takes it on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from dynconv_plugins.datasets.preparation import RECORD
from dynconv_plugins.datasets.tiny_imagenet import KIND, images_in
from dynconv_plugins.errors import UserError

IMAGES = {".jpeg", ".jpg", ".png"}


def tiny_imagenet(source: Path, out: Path, classes: int, train: int, test: int) -> Path:
    """Links the first `classes` classes by name, with `train` and `test` images each.

    Either of the official layout or of the one that ``dynconv data tiny-imagenet`` makes, ``train/<wnid>/*.JPEG`` and
    ``val/<wnid>/*.JPEG``; the same images of both.
    """
    _clear(out)
    wnids = sorted(p.name for p in (source / "train").iterdir() if p.is_dir())[:classes]
    table, flat = source / "val" / "val_annotations.txt", images_in(source / "val")
    organised = not flat or not table.is_file()
    for wnid in wnids:
        chosen = images_in(source / "train" / wnid)[:train]
        _link(chosen, out / "train" / wnid / ("" if organised else "images"))
        if organised:
            own = source / "val" / wnid
            # val_9 comes before val_10, as in the official list.
            tested = sorted(images_in(own) if own.is_dir() else (), key=lambda p: (len(p.name), p.name))[:test]
            if not tested:
                raise UserError(f"{source} has neither val/val_annotations.txt nor images in val/{wnid}")
            _link(tested, out / "val" / wnid)
            continue
        boxes = source / "train" / wnid / f"{wnid}_boxes.txt"
        if boxes.is_file():
            names = {p.name for p in chosen}
            _keep(boxes, out / "train" / wnid / boxes.name, lambda line, n=names: line.split("\t")[0] in n)
    if organised:
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
    _link((flat[0].with_name(line.split("\t")[0]) for line in lines), out / "val" / "images")
    _write(out / "val" / "val_annotations.txt", lines, table)
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
        _write(target / "ImageSets" / "Segmentation" / f"{split}.txt", names, lists / f"{split}.txt")
    _write(target / "ImageSets" / "Segmentation" / "trainval.txt", kept, lists / "val.txt")
    _link((source / "JPEGImages" / f"{n}.jpg" for n in kept), target / "JPEGImages")
    _link((source / "SegmentationClass" / f"{n}.png" for n in kept), target / "SegmentationClass")
    return target


def fingerprint(prepared: Path) -> str:
    """Changes with the files that a folder was prepared from: their names, sizes and dates."""
    (record,) = json.loads((prepared / RECORD).read_text()).values()
    return record["fingerprint"]


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


def _keep(source: Path, target: Path, wanted: Callable[[str], bool]) -> None:
    _write(target, (line for line in source.read_text().splitlines() if wanted(line)), source)


def _write(path: Path, lines: Iterable[str], source: Path) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
    # As old as what it was taken from, or whatever is prepared from this part would look changed at every run.
    old = source.stat().st_mtime_ns
    os.utime(path, ns=(old, old))
