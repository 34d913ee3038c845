"""Tiny ImageNet: every form of the source, every kind of damage, killing and repeating."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dynconv_plugins.datasets import archives, decoding, find, tiny_imagenet
from dynconv_plugins.errors import UserError

pytest.importorskip("PIL")


@pytest.fixture
def tiny(official) -> Path:
    return official / "tiny-imagenet-200"


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


@pytest.mark.parametrize("form", SOURCES)
def test_every_source_gives_the_same(form, tiny, tmp_path):
    expected = {}
    for path in (tiny / "train").rglob("*.JPEG"):
        expected[f"train/{path.name.partition('_')[0]}/{path.name}"] = path.read_bytes()
    for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        expected[f"val/{wnid}/{name}"] = (tiny / "val" / "images" / name).read_bytes()
    out = tiny_imagenet.prepare(SOURCES[form](tiny, tmp_path), tmp_path / "out")
    assert len(expected) == 18 and content(out) == expected
    assert all(p.is_symlink() for p in (out / "train").rglob("*.JPEG"))
    record = json.loads((out / "dataset.json").read_text())["tiny-imagenet"]
    assert record["counts"] == {"train": 12, "val": 6}
    assert form == "organised" or record["classes"]["n99000001"] == "diatom 1"


@pytest.mark.parametrize("form", ["folder", "zip", "shards"])
def test_first_classes_only(form, tiny, tmp_path):
    out = tiny_imagenet.prepare(SOURCES[form](tiny, tmp_path), tmp_path / "out", classes=2)
    for part in ("train", "val"):
        assert sorted(p.name for p in (out / part).iterdir()) == ["n99000001", "n99000002"]
    with pytest.raises(UserError, match="--classes 4: .* has only"):
        tiny_imagenet.prepare(tiny, tmp_path / "other", classes=4)


def test_unpacked_archives_can_be_moved_with_their_links(tiny, tmp_path):
    out = tiny_imagenet.prepare(as_zip(tiny, tmp_path), tmp_path / "out")
    os.rename(out, tmp_path / "moved")
    assert len(content(tmp_path / "moved")) == 18


def test_a_second_run_does_nothing_and_sees_changes(tiny, tmp_path):
    lines: list[str] = []
    out = tiny_imagenet.prepare(tiny, tmp_path / "out", log=lines.append)
    before = {p: p.lstat().st_mtime_ns for p in out.rglob("*")}
    tiny_imagenet.prepare(tiny, out, log=lines.append)
    assert before == {p: p.lstat().st_mtime_ns for p in out.rglob("*")}
    assert [line.partition(":")[0] for line in lines if "prepared" in line] == ["prepared", "already prepared"]

    shutil.copy(tiny / "train/n99000001/images/n99000001_0.JPEG", tiny / "train/n99000001/images/n99000001_9.JPEG")
    tiny_imagenet.prepare(tiny, out)
    assert len(content(out)) == 19
    shutil.rmtree(out / "train")
    tiny_imagenet.prepare(tiny, out)
    assert len(content(out)) == 19


def test_what_was_unpacked_is_a_source_too(tiny, tmp_path):
    archive, out = as_zip(tiny, tmp_path), tmp_path / "out"
    tiny_imagenet.prepare(archive, out)
    unpacked = archives.place([archive], out, "tiny-imagenet") / tiny.name
    archive.unlink()
    for classes, count in ((2, 12), (None, 18)):
        tiny_imagenet.prepare(unpacked, out, classes=classes)
        assert len(content(out)) == count


def test_a_killed_run_goes_on(tiny, tmp_path):
    archive, out = as_zip(tiny, tmp_path), tmp_path / "out"
    script = f"""
import os, pathlib, signal, time
from dynconv_plugins.datasets import decoding, tiny_imagenet
decoding.CHUNK, check = 2, decoding.image_problem
def die(path):
    if path.name == "n99000003_1.JPEG":
        # Another thread writes the journal: not before it has noted something.
        journals = lambda: pathlib.Path({str(tmp_path)!r}).rglob("verified-*.txt")
        while not any(len(journal.read_text().splitlines()) > 1 for journal in journals()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return check(path)
decoding.image_problem = die
tiny_imagenet.prepare({str(archive)!r}, {str(out)!r}, jobs=1)
"""
    killed = subprocess.run([sys.executable, "-c", script], timeout=120, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "dataset.json").exists() and not (out / "train").exists()

    unpacked = {p: p.stat().st_mtime_ns for p in (out / ".source").rglob("*.JPEG")}
    checked: list[str] = []
    check = decoding.image_problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "image_problem", lambda path: checked.append(path.name) or check(path))
        tiny_imagenet.prepare(archive, out)
    assert unpacked == {p: p.stat().st_mtime_ns for p in (out / ".source").rglob("*.JPEG")}
    assert 0 < len(checked) < 18 and "n99000001_0.JPEG" not in checked
    assert len(content(out)) == 18 and not list(out.glob(".tiny*"))


def test_killed_while_unpacking(tiny, tmp_path):
    archive, out = as_zip(tiny, tmp_path), tmp_path / "out"
    unpacked = archives.place([archive], out, "tiny-imagenet")
    inside = unpacked / "tiny-imagenet-200" / "train" / "n99000001" / "images"
    inside.mkdir(parents=True)
    (inside / "n99000001_0.JPEG").write_bytes(b"cut")
    (inside / f"n99000001_1.JPEG.{os.getpid()}.part").write_bytes(b"cut")
    out = tiny_imagenet.prepare(archive, out)
    assert len(content(out)) == 18 and not list(out.rglob("*.part"))


def test_no_space_is_one_line_and_leaves_nothing_half_written(tiny, tmp_path, fails, dynconv):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    archive, out = as_zip(tiny, tmp_path), tmp_path / "out"
    unpacked = archives.place([archive], out, "tiny-imagenet")
    full = unpacked / "tiny-imagenet-200" / "val" / "images" / f"val_3.JPEG.{os.getpid()}.part"
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")  # writing it is a real ENOSPC
    line = fails("data", "tiny-imagenet", archive, "--out", out)
    assert "no space left" in line and "val_3.JPEG" in line
    assert not (out / "dataset.json").exists() and not (out / "train").exists() and not list(out.rglob("*.part.*"))
    assert not full.is_symlink() and not full.with_name("val_3.JPEG").exists()
    assert dynconv("data", "tiny-imagenet", archive, "--out", out).returncode == 0
    assert len(content(out)) == 18


def test_too_little_space_is_said_before_anything_is_written(tiny, tmp_path, monkeypatch):
    archive = as_zip(tiny, tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match="MB free but .* MB are needed"):
        tiny_imagenet.prepare(archive, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.JPEG"))


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


def test_strict_makes_deviations_errors(tiny, tmp_path):
    lines: list[str] = []
    out = tiny_imagenet.prepare(tiny, tmp_path / "out", log=lines.append)
    assert any("3 classes, officially 200" in line for line in lines)
    assert any("officially" in line or "official 500" in line for line in lines[1:])
    with pytest.raises(UserError, match="officially 200"):
        tiny_imagenet.prepare(tiny, out, strict=True)


def test_out_inside_the_source(tiny, tmp_path):
    with pytest.raises(UserError, match="lies inside the source"):
        tiny_imagenet.prepare(tiny, tiny / "train" / "out")
    assert not (tiny / "train" / "out").exists()


def test_real_data(tmp_path):
    root = find().get("tiny-imagenet")
    if root is None:
        pytest.skip("no Tiny ImageNet under DYNCONV_DATA")
    out = tiny_imagenet.prepare(root, tmp_path, classes=2)
    for part, count in (("train", 500), ("val", 50)):
        assert [len(list(p.iterdir())) for p in sorted((out / part).iterdir())] == [count, count]
