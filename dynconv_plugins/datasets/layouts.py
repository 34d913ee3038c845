"""Writes samples in the official layouts of Tiny ImageNet, VOC 2012 and the UCR archive."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from . import files
from .render import voc_palette


class TinyImageNet:
    """``train/<wnid>/images/<wnid>_<n>.JPEG``, ``val/images/val_<n>.JPEG``, and the tables beside them."""

    def __init__(self, root: Path, words: dict[str, str]) -> None:
        self.root, self.words = root, words
        self.tables: dict[str, list[str]] = {}
        for wnid in words:
            (root / "train" / wnid / "images").mkdir(parents=True)
        (root / "val" / "images").mkdir(parents=True)

    def add(self, split: str, number: int, wnid: str, jpeg: bytes, box: tuple[int, int, int, int]) -> None:
        """Adds an image; `box` is (left, top, right, bottom) in pixels, of the object."""
        if split == "train":
            folder, table, row = f"train/{wnid}", f"train/{wnid}/{wnid}_boxes.txt", [f"{wnid}_{number}.JPEG"]
        else:
            folder, table, row = "val", "val/val_annotations.txt", [f"val_{number}.JPEG", wnid]
        files.write(self.root / folder / "images" / row[0], jpeg)
        self.tables.setdefault(table, []).append("\t".join([*row, *map(str, box)]))

    def close(self) -> None:
        self.tables["wnids.txt"] = list(self.words)
        self.tables["words.txt"] = [f"{wnid}\t{text}" for wnid, text in self.words.items()]
        for table, lines in self.tables.items():
            files.write(self.root / table, text_of(lines))


class VOC2012:
    """``JPEGImages/<id>.jpg``, ``SegmentationClass/<id>.png`` and the lists in ``ImageSets/Segmentation``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ids: dict[str, list[str]] = {"train": [], "val": []}
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)

    def add(self, split: str, name: str, jpeg: bytes, mask: np.ndarray) -> None:
        files.write(self.root / "JPEGImages" / f"{name}.jpg", jpeg)
        files.write(self.root / "SegmentationClass" / f"{name}.png", palette_png(mask))
        self.ids[split].append(name)

    def close(self) -> None:
        self.ids["trainval"] = self.ids["train"] + self.ids["val"]
        for name, ids in self.ids.items():
            files.write(self.root / "ImageSets" / "Segmentation" / f"{name}.txt", text_of(ids))


class UCR:
    """``<Name>_TRAIN.tsv`` and ``<Name>_TEST.tsv``: a series a line, its label first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, list[str]] = {"TRAIN": [], "TEST": []}

    def add(self, split: str, label: str, series: np.ndarray) -> None:
        self.rows[split].append("\t".join([label, *(f"{v:.8g}" for v in series)]))

    def close(self) -> None:
        for split, rows in self.rows.items():
            files.write(self.root / f"{self.root.name}_{split}.tsv", text_of(rows))


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def palette_png(mask: np.ndarray) -> bytes:
    """Returns a PNG of label numbers (uint8 ``[H, W]``) with VOC's colours as its palette."""
    buffer, picture = io.BytesIO(), Image.fromarray(mask)
    picture.putpalette(voc_palette())
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def text_of(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
