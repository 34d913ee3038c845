"""Tiny ImageNet: every form of the source, killing and repeating."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_sources import SOURCES, as_zip, content

from dynconv_plugins.datasets import archives, decoding, find, tiny_imagenet
from dynconv_plugins.errors import UserError

pytest.importorskip("PIL")


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
    lines: list[str] = []
    out = tiny_imagenet.prepare(SOURCES[form](tiny, tmp_path), tmp_path / "out", classes=2, log=lines.append)
    assert not any("without training images" in line for line in lines), lines
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
