"""Tiny ImageNet as people have it."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

from dynconv_plugins.datasets import tiny_imagenet


def as_zip(tiny: Path, to: Path) -> Path:
    return Path(shutil.make_archive(str(to / "tiny-imagenet-200"), "zip", tiny.parent, tiny.name))


def as_shards(tiny: Path, to: Path) -> Path:
    folder = to / "shards"
    folder.mkdir()
    for n, wnid in enumerate(sorted(p.name for p in (tiny / "train").iterdir())):
        with tarfile.open(folder / f"train-{n}.tar.gz", "w:gz") as t:
            t.add(tiny / "train" / wnid, f"tiny-imagenet-200/train/{wnid}")
    with tarfile.open(folder / "val.tar.gz", "w:gz") as t:
        for name in ("val", "words.txt", "wnids.txt"):
            t.add(tiny / name, f"tiny-imagenet-200/{name}")
    return folder


def as_image_folder(tiny: Path, to: Path) -> Path:
    return tiny_imagenet.prepare(tiny, to / "organised")


def as_zip_of_macos(tiny: Path, to: Path) -> Path:
    """What its Finder makes: a second entry beside each file, and a tree of its own that comes last."""
    archive = as_zip(tiny, to)
    with zipfile.ZipFile(archive, "a") as z:
        for name in [n for n in z.namelist() if not n.endswith("/")]:
            folder, _, file = name.rpartition("/")
            z.writestr(f"__MACOSX/{folder}/._{file}", b"of the Finder")
        z.writestr("tiny-imagenet-200/val/images/._val_0.JPEG", b"of the Finder")
    return archive


def as_image_folder_with_its_table(tiny: Path, to: Path) -> Path:
    """What scripts that move the official validation images leave."""
    for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        (tiny / "val" / wnid).mkdir(exist_ok=True)
        shutil.move(tiny / "val" / "images" / name, tiny / "val" / wnid / name)
    return tiny


def as_flat_val(tiny: Path, to: Path) -> Path:
    for image in sorted((tiny / "val" / "images").iterdir()):
        image.rename(tiny / "val" / image.name)
    (tiny / "val" / "images").rmdir()
    return tiny


SOURCES = {
    "folder": lambda tiny, to: tiny,
    "parent": lambda tiny, to: tiny.parent,
    "zip": as_zip,
    "zip of macOS": as_zip_of_macos,
    "shards": as_shards,
    "organised": as_image_folder,
    "organised, table left": as_image_folder_with_its_table,
    "flat val": as_flat_val,
}


def content(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for part in ("train", "val") for p in (root / part).rglob("*.JPEG")
    }
