"""Tiny ImageNet: every kind of damage is a line, and costs no earlier result."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
from tiny_sources import SOURCES, as_zip, content

from dynconv_plugins.datasets import archives, tiny_imagenet
from dynconv_plugins.errors import UserError

pytest.importorskip("PIL")


def truncate(tiny: Path) -> None:
    for n in (1, 2):
        path = tiny / "train" / "n99000002" / "images" / f"n99000002_{n}.JPEG"
        path.write_bytes(path.read_bytes()[:-20])


def empty_file(tiny: Path) -> None:
    (tiny / "val" / "images" / "val_0.JPEG").write_bytes(b"")


def no_annotations(tiny: Path) -> None:
    (tiny / "val" / "val_annotations.txt").unlink()


def annotated_image_gone(tiny: Path) -> None:
    (tiny / "val" / "images" / "val_5.JPEG").unlink()


def image_not_annotated(tiny: Path) -> None:
    shutil.copy(tiny / "val" / "images" / "val_5.JPEG", tiny / "val" / "images" / "val_77.JPEG")


def annotations_garbled(tiny: Path) -> None:
    (tiny / "val" / "val_annotations.txt").write_text("val_0.JPEG n99000001\n")


def class_empty(tiny: Path) -> None:
    for path in (tiny / "train" / "n99000003" / "images").iterdir():
        path.unlink()


def no_val(tiny: Path) -> None:
    shutil.rmtree(tiny / "val")


def no_classes(tiny: Path) -> None:
    shutil.rmtree(tiny / "train")
    (tiny / "train").mkdir()


DAMAGE = [
    (truncate, r"2 images cannot be decoded, first: train/n99000002/images/n99000002_1.JPEG \(.*truncated.*\); delete"),
    (empty_file, r"1 images cannot be decoded, first: val/images/val_0.JPEG \(empty\)"),
    (no_annotations, r"val_annotations.txt is missing"),
    (annotated_image_gone, r"1 images of .* are missing, first: images/val_5.JPEG"),
    (image_not_annotated, r"1 val images are not in .*, first: val_77.JPEG"),
    (annotations_garbled, r"val_annotations.txt:1: expected"),
    (class_empty, r"1 classes have no train images in .*, first: n99000003"),
    (no_val, r"has train/ but no val/"),
    (no_classes, r"has no class folders"),
]


@pytest.mark.parametrize("damage, line", DAMAGE, ids=[d.__name__ for d, _ in DAMAGE])
def test_damage_is_one_line_and_leaves_no_result(damage, line, tiny, tmp_path):
    damage(tiny)
    with pytest.raises(UserError, match=line) as raised:
        tiny_imagenet.prepare(tiny, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "dataset.json").exists() and not (tmp_path / "out" / "train").exists()


def test_a_failed_run_keeps_the_earlier_result(tiny, tmp_path):
    out = tiny_imagenet.prepare(tiny, tmp_path / "out")
    record = (out / "dataset.json").read_text()
    truncate(tiny)
    with pytest.raises(UserError):
        tiny_imagenet.prepare(tiny, out)
    assert (out / "dataset.json").read_text() == record and len(content(out)) == 18


@pytest.mark.parametrize("form", ["zip", "shards"])
def test_truncated_archive(form, tiny, tmp_path):
    source = SOURCES[form](tiny, tmp_path)
    archive = source / "train-1.tar.gz" if source.is_dir() else source
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{archive.name} is truncated or damaged"):
        tiny_imagenet.prepare(source, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_archive_with_a_damaged_member(tiny, tmp_path):
    archive = as_zip(tiny, tmp_path)
    packed = bytearray(archive.read_bytes())
    at = packed.index(b"n99000001_0.JPEG") + 200
    packed[at : at + 50] = bytes(50)
    archive.write_bytes(packed)
    with pytest.raises(UserError, match="is truncated or damaged"):
        tiny_imagenet.prepare(archive, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("n99000001_0*"))


def test_a_corrected_archive(tiny, tmp_path):
    """One without the damaged image, and one with another of the same size."""
    damaged, other = (tiny / "train" / "n99000002" / "images" / f"n99000002_{n}.JPEG" for n in (1, 2))
    good = damaged.read_bytes()
    damaged.write_bytes(bytes(len(good)))
    archive, out = as_zip(tiny, tmp_path), tmp_path / "out"
    with pytest.raises(UserError, match=rf"first: train/.*; delete or replace them in {archive}$"):
        tiny_imagenet.prepare(archive, out)
    for content_of, count in ((None, 17), (good, 18)):
        damaged.unlink() if content_of is None else damaged.write_bytes(content_of)
        tiny_imagenet.prepare(as_zip(tiny, tmp_path), out)
        assert len(content(out)) == count
        assert [p.name for p in (out / ".source").iterdir()] == [archives.place([archive], out, "tiny-imagenet").name]
    other.write_bytes(other.read_bytes()[:-2] + b"..")
    tiny_imagenet.prepare(as_zip(tiny, tmp_path), out)
    assert content(out)[f"train/n99000002/{other.name}"] == other.read_bytes()


def test_archive_that_would_write_elsewhere(tiny, tmp_path):
    bad = tmp_path / "bad.tar"
    with tarfile.open(bad, "w") as t:
        t.add(tiny / "wnids.txt", "tiny-imagenet-200/train/n1/../../../../../evil.txt")
    with pytest.raises(UserError, match="outside its folder"):
        tiny_imagenet.prepare(bad, tmp_path / "a" / "b" / "c")
    assert not list(tmp_path.rglob("evil.txt"))
