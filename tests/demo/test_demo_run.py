"""The demo itself at its smallest, on time series: the quickest host; CI runs all three with `make demo`."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynconv_plugins.demo import subset
from dynconv_plugins.errors import UserError

for module in ("tsai", "rich", "matplotlib", "jinja2", "fvcore"):
    pytest.importorskip(module)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync".split()
ROOT = Path(__file__).resolve().parents[2]


def demo(*args: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "DYNCONV_DATA"}
    command = [sys.executable, "-m", "dynconv_plugins.demo", *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=580)


@pytest.mark.slow  # .ci/run runs the same demo
def test_the_smallest_demo_ends_in_a_table_and_a_page(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    args = ("--size", "smallest", "--tasks", "series", "--threads", "1", "--out", str(out))
    done = demo(*args)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ODConv 4x" in done.stdout and "index.html" in done.stdout

    results = json.loads((out / "results.json").read_text())
    rows = {row["operator"]: row for row in results["rows"]}
    assert list(rows) == ["static", "odconv", "odconv4x"]
    for operator, row in rows.items():
        stored = json.loads((out / "series" / operator / "run" / "results.json").read_text())
        assert row["score"] == stored["mean"], "the table's number is the host's number"
        assert row["stderr"] == pytest.approx((row["score"] * (1 - row["score"]) / row["test"]) ** 0.5)
        assert row["latency_ms"] > 0 and row["seconds"] > 0 and row["curve"]["train_loss"]
    assert rows["static"]["params"] < rows["odconv"]["params"] < rows["odconv4x"]["params"]
    assert rows["static"]["macs"] < rows["odconv"]["macs"] < rows["odconv4x"]["macs"]
    assert (out / "results.md").read_text().count("ODConv") >= 4

    page = (out / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|https://openreview)', page), "the page loads something"
    assert not re.search(r"<script|@import|url\(", page)
    assert page.count("data:image/png;base64,") >= 8
    for words in ("spatial attention", "kernel gates", "channel gates", "filter gates", "tsai_models train"):
        assert words in page, words
    if CHROMIUM:
        check_widths(page, tmp_path)

    before = [(out / "series" / o / "cell.json").stat().st_mtime_ns for o in rows]
    started = time.monotonic()
    again = demo(*args)
    assert again.returncode == 0 and again.stdout.count("done before") == 3
    assert before == [(out / "series" / o / "cell.json").stat().st_mtime_ns for o in rows]
    assert time.monotonic() - started < 300


def check_widths(page: str, folder: Path) -> None:
    """Nothing sticks out sideways on a phone or on a desktop; wide pictures scroll in their own box."""
    for width in (360, 1200):
        frame = f'<iframe id="f" width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>'
        script = "onload = () => { const d = document.getElementById('f').contentDocument.documentElement;"
        script += " document.title = `${d.scrollWidth} ${d.clientWidth} ${d.scrollHeight}` }"
        wrapper = folder / f"frame{width}.html"
        wrapper.write_text(f"<!DOCTYPE html><title>-</title>{frame}<script>{script}</script>")
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1300,1000"]
        command += ["--virtual-time-budget=5000", "--dump-dom", wrapper.as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
        sizes = re.search(r"<title>(\d+) (\d+) (\d+)</title>", dom)
        assert sizes, dom[:300]
        content, visible, height = map(int, sizes.groups())
        assert content <= visible, f"{content} pixels of content on {visible}"
        assert height > 1500


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--out", "pyproject.toml"], "is a file"),
    ],
)
def test_bad_arguments_end_in_one_line(args: list[str], words: str) -> None:
    done = demo(*args)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [done.stderr.strip()]
    assert done.stderr.startswith("error:") and words in done.stderr


def test_subsets_keep_the_official_layouts(tmp_path: Path) -> None:
    from dynconv_plugins import datasets

    made = datasets.diatoms.make(tmp_path / "all", classes=3, train=4, test=3)
    tiny = subset.tiny_imagenet(made / "tiny-imagenet-200", tmp_path / "tiny", classes=2, train=3, test=2)
    assert len(list(tiny.glob("train/*/images/*"))) == 6
    named = {line.split("\t")[0] for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines()}
    assert named == {p.name for p in (tiny / "val" / "images").iterdir()} and len(named) == 4
    ready = datasets.tiny_imagenet.prepare(tiny, tmp_path / "ready")
    assert len(list(ready.glob("val/*/*"))) == 4

    # The same images of what 'dynconv data' has made of it.
    whole = datasets.tiny_imagenet.prepare(made / "tiny-imagenet-200", tmp_path / "whole")
    again = subset.tiny_imagenet(whole, tmp_path / "again", classes=2, train=3, test=2)
    prepared = [ready, datasets.tiny_imagenet.prepare(again, tmp_path / "ready again")]
    images = [{p.relative_to(root) for p in root.glob("*/*/*")} for root in prepared]
    assert images[0] == images[1] and len(images[0]) == 10
    words = [dict(line.split("\t", 1) for line in (p / "words.txt").read_text().splitlines()) for p in (tiny, again)]
    assert words[0] == words[1]

    # A second time replaces the first, but nothing that somebody put there.
    subset.tiny_imagenet(whole, tmp_path / "again", classes=1, train=1, test=1)
    mine = tmp_path / "again" / "train" / "mine.JPEG"
    mine.write_bytes(b"mine")
    with pytest.raises(UserError, match="holds other files, e.g. mine.JPEG; choose another --out"):
        subset.tiny_imagenet(whole, tmp_path / "again", classes=1, train=1, test=1)
    assert mine.read_bytes() == b"mine"

    # Scripts that move the validation images to folders of their classes leave the table, and train/ as it is.
    official = made / "tiny-imagenet-200"
    table = official / "val" / "val_annotations.txt"
    for line in table.read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        (official / "val" / wnid).mkdir(exist_ok=True)
        (official / "val" / "images" / name).rename(official / "val" / wnid / name)
    for _ in range(2):
        mixed = subset.tiny_imagenet(official, tmp_path / "mixed", classes=2, train=3, test=2)
        moved = datasets.tiny_imagenet.prepare(mixed, tmp_path / "ready mixed")
        assert {p.relative_to(moved) for p in moved.glob("*/*/*")} == images[0]
        table.unlink(missing_ok=True)

    voc = subset.voc2012(made / "VOCdevkit" / "VOC2012", tmp_path / "voc", train=5, test=2)
    lists = {n: (voc / "ImageSets" / "Segmentation" / f"{n}.txt").read_text().split() for n in ("train", "val")}
    assert {k: len(v) for k, v in lists.items()} == {"train": 5, "val": 2}
    assert len(list((voc / "SegmentationClass").iterdir())) == 7
    datasets.voc2012.prepare(tmp_path / "voc" / "VOCdevkit" / "VOC2012", tmp_path / "ready-voc")


def test_other_data_are_not_done_before(tmp_path: Path) -> None:
    from dynconv_plugins import datasets

    def inputs(seed: int) -> str:
        made = datasets.diatoms.make(tmp_path / f"seed {seed}", classes=2, train=3, test=2, size=32, seed=seed)
        part = subset.voc2012(made / "VOCdevkit" / "VOC2012", tmp_path / "part", train=4, test=2)
        datasets.voc2012.prepare(part, tmp_path / "masks")
        return subset.fingerprint(tmp_path / "masks")

    assert inputs(0) != inputs(1)
    assert inputs(1) == inputs(1) != inputs(0)


def test_one_demo_at_a_time_in_a_folder(tmp_path: Path, monkeypatch) -> None:
    from dynconv_plugins import locking
    from dynconv_plugins.demo.show import Show

    monkeypatch.setattr(locking, "PATIENCE", 0)
    monkeypatch.setattr(Show, "_prepare", lambda self: pytest.fail("it runs"))
    with locking.sole(tmp_path, "--out"), pytest.raises(UserError, match="another run writes to"):
        Show({}, tmp_path, "smallest", ["series"], 1).run()
