"""The command: what it writes, what it leaves alone, and how it ends when something is wrong."""

from __future__ import annotations

import errno
import html
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("rich")
pytest.importorskip("yaml")

from dynconv_plugins import cli
from dynconv_plugins.errors import UserError
from dynconv_plugins.report import build as building
from dynconv_plugins.report.archive import unpacked


def test_an_interrupted_report_leaves_the_old_one(fabricate, monkeypatch, capsys) -> None:
    root = fabricate().task("images", "timm", {"static": [0.6], "odconv": [0.7]}).root
    run = ["report", str(root), "--no-pictures"]
    assert cli.run(run) == 0
    (root / "report" / "notes.txt").write_text("mine")
    before = {p: p.read_bytes() for p in (root / "report").rglob("*") if p.is_file()}

    def full(*_args, **_kw):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(building, "markdown", full)
        with pytest.raises(SystemExit) as ended:
            cli.main(run)
    assert ended.value.code == 2 and "no space left" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (root / "report").rglob("*") if p.is_file()} == before
    assert [p.name for p in root.iterdir() if "part" in p.name or "old" in p.name] == []
    assert cli.run(run) == 0
    assert (root / "report" / "notes.txt").read_text() == "mine", "what is not the report's stays"
    assert "does dynamic convolution pay" in capsys.readouterr().out.lower()


def test_bad_arguments_are_one_line(tmp_path: Path, fabricate, capsys) -> None:
    root = fabricate().task("images", "timm", {"static": [0.6], "odconv": [0.7]}).root
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("do not touch")
    for args, words in (
        ([str(tmp_path / "nowhere")], "is not a folder"),
        ([str(tmp_path / "full")], "holds no study"),
        ([str(tmp_path / "file")], "is not a folder: say --out DIR"),
        ([str(tmp_path / "file"), "--out", str(tmp_path / "new")], "is neither a study's folder nor the records.zip"),
        ([str(root), "--out", str(tmp_path / "file")], "is a file"),
        ([str(root), "--out", str(tmp_path / "full")], "holds other files"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["report", "--no-pictures", *args])
        err = capsys.readouterr().err.strip()
        assert ended.value.code == 2 and err.startswith("error:") and words in err and "\n" not in err
    assert (tmp_path / "full" / "thesis.txt").read_text() == "do not touch"


def test_all_cells_failed_is_a_report_and_none_readable_is_an_error(fabricate) -> None:
    made = fabricate().task("images", "timm", {"static": [0.6], "odconv": [0.7]})
    for path in made.root.glob("images/*/*/cell.json"):
        path.write_text(path.read_text().replace('"status": "done"', '"status": "failed"'))
    assert cli.run(["report", str(made.root), "--no-pictures"]) == 0
    text = (made.root / "report" / "report.md").read_text()
    assert "2 of 2 cells have no result: 2 failed." in text and "Too early to say" in text
    for path in made.root.glob("images/*/*/cell.json"):
        path.write_text("")
    with pytest.raises(UserError, match="no cell of .* can be read"):
        cli.run(["report", str(made.root), "--no-pictures"])


def test_curves_of_the_test_set_are_called_that(fabricate) -> None:
    root = fabricate().task("images", "timm", {"static": [0.6], "odconv": [0.7]}).root

    def said() -> str:
        assert cli.run(["report", str(root), "--no-pictures"]) == 0
        return (root / "report" / "report.md").read_text()

    assert "validation loss over" in said() and "held out of the training set" in said()

    def known(**data) -> None:
        for path in root.glob("*/*/*/cell.json"):
            record = json.loads(path.read_text())
            path.write_text(json.dumps(record | {"data": record["data"] | data}))

    known(valid=0)
    text = said()
    assert "validation" not in text and "followed on the test set" in text
    # While recipes are chosen, part of the training data takes the place of the test set.
    known(tuning=True)
    text = said()
    assert "followed on the part of the training data" in text and "1,000 held-out images" in text
    assert "test loss" not in text and "test set" not in text.replace("the test set is not read", "")


def test_a_reports_records_take_the_place_of_folders_that_are_gone(fabricate, tmp_path: Path, capsys) -> None:
    scores = {"static": [0.6, 0.61, 0.59], "odconv": [0.63, 0.66]}
    made = fabricate("mine").task("images", "timm", scores)
    made.cell("images", "timm", "hard", 0, 0.5, 1.0, False, 3, ["resnet18"], (), {})
    edit(made.root / "images/hard/seed0", status="failed", trained=True, seconds=5.0)
    truth = np.array([0, 1, 2, 2])
    for model in ("static", "odconv"):
        edit(made.root / f"images/{model}/seed0", "metrics.json", predictions="predictions.npz")
        np.savez(made.root / f"images/{model}/seed0/predictions.npz", truth=truth, predicted=truth)
    # As another machine has left it, whose folder was copied here.
    elsewhere, place = "/scratch/alice/mine", {"path": "/datasets/alice/UCR"}
    for cell in made.root.glob("images/*/*"):
        record = json.loads((cell / "cell.json").read_text())
        command = [
            "/usr/bin/python3",
            "train",
            place["path"],
            "--out",
            f"{elsewhere}/{cell.relative_to(made.root)}/run",
        ]
        edit(cell, data=record["data"] | place, command=command, options={"start": "/home/alice/weights/w.pth"})
    edit(made.root / "images/hard/seed0", error=f"{elsewhere}/images is full, like /var/lib/alice/x")
    first, second, both = (tmp_path / name for name in ("first", "second", "both"))
    assert cli.run(["report", str(made.root), "--no-pictures", "--out", str(first)]) == 0
    with zipfile.ZipFile(first / "records.zip") as file:
        names = file.namelist()
        stored = b"".join(map(file.read, names)).decode(errors="replace")
        assert "trained" not in file.read("mine/images/hard/seed0/cell.json").decode(), "its weights are not here"
    for text in (stored, *((first / name).read_text() for name in ("index.html", "report.md"))):
        assert "alice" not in text and str(tmp_path) not in text, "a machine's own paths"
    assert len([n for n in names if n.endswith("metrics.json")]) == 5 and "mine/study.yaml" in names

    shutil.rmtree(made.root)
    assert cli.run(["report", str(first / "records.zip"), "--out", str(second)]) == 0
    for path in (first / "csv").iterdir():
        assert path.read_text() == (second / "csv" / path.name).read_text()
    page = (second / "report.md").read_text()
    assert "No pictures of static, ODConv" in page and "mine/images is full" in page
    assert "train $DYNCONV_DATA/UCR --out mine/images/static/seed0/run" in (second / "index.html").read_text()
    assert (first / "records.zip").read_bytes() == (second / "records.zip").read_bytes()

    again = fabricate("mine").task("images", "timm", {"static": [0.6], "orconv": [0.5]})
    assert cli.run(["report", str(first / "records.zip"), str(again.root), "--no-pictures", "--out", str(both)]) == 0
    with zipfile.ZipFile(both / "records.zip") as file:
        assert {"mine/images/costs.json", "mine-2/images/costs.json"} <= set(file.namelist())

    more = fabricate("more").task("images", "timm", {**scores, "odconv": [0.63, 0.66, 0.65]})
    run = ["report", str(first / "records.zip"), str(more.root), "--no-pictures", "--out", str(both)]
    assert cli.run(run) == 0
    assert "ODConv (3 runs)" in (both / "report.md").read_text()


def test_a_study_reads_the_same_from_its_records(fabricate, tmp_path: Path, capsys) -> None:
    """Runs that were begun, and files that cannot be read, are no runs that nobody has started."""
    made = fabricate("mine").task("images", "timm", {"static": [0.6] * 6, "odconv": [0.63, 0.66, 0.6, 0.6, 0.6, 0.6]})
    root = made.root / "images/odconv"
    edit(root / "seed1", status="waiting", attempts=1)
    edit(root / "seed2", status="waiting", attempts=0)
    edit(root / "seed3", status="running", attempts=2)
    (root / "seed4" / "cell.json").write_text('{"format": 1, "inp')
    (root / "seed5" / "metrics.json").write_text("{")
    # A unit that no other model has begun either is left out as not asked for.
    for model in ("static", "odconv"):
        edit(made.root / f"images/{model}/seed1", status="waiting", attempts=int(model == "odconv"))

    def told(source: Path, name: str) -> str:
        assert cli.run(["report", str(source), "--no-pictures", "--out", str(tmp_path / name)]) == 0
        text = (tmp_path / name / "report.md").read_text()
        return text[: text.index("## How it was made")]

    first = told(made.root, "first")
    for words in (
        "6 of 12 cells have no result: 2 damaged, 1 running, 1 waiting, 2 not started.",
        "`images/odconv/seed1`: waiting: it waits to go on",
        "`images/odconv/seed3`: running",
        "`images/odconv/seed4`: damaged: cell.json is damaged",
        "`images/odconv/seed5`: damaged: metrics.json is damaged",
        "`images: 2 cells`: missing: not started: static (seed 1); ODConv (seed 2)",
    ):
        assert words in first, words
    assert told(tmp_path / "first/records.zip", "second") == first
    with zipfile.ZipFile(tmp_path / "first/records.zip") as file:
        waiting = json.loads(file.read("mine/images/odconv/seed1/cell.json"))
        assert "attempts" not in waiting, "a study that goes on elsewhere begins it anew, and times all of it"
    assert told(tmp_path / "second/records.zip", "third") == first


def test_nothing_is_said_twice(fabricate, capsys) -> None:
    """Nor asked of a plan that has no dynamic model in it."""
    made = fabricate("first").task("images", "timm", {"static": [0.051, 0.052], "odconv": [0.053, 0.054, 0.055]})
    for path in made.root.glob("images/*/*/metrics.json"):
        edit(path.parent, "metrics.json", constant_score=0.05)
    others = [fabricate(name).task(name, "tsai", {"static": [0.6]}, costs=False).root for name in ("second", "third")]

    def pages(*roots: Path) -> tuple[str, str]:
        assert cli.run(["report", *map(str, roots), "--no-pictures", "--out", str(made.root / "report")]) == 0
        page = html.unescape((made.root / "report" / "index.html").read_text())
        return page[page.index("<body>") :], (made.root / "report" / "report.md").read_text()

    for text in pages(made.root, *others):
        for words in (
            "ODConv is 0.2 points above its static twin",
            "1 of 6 cells has no result",
            "have hardly learned the task",
            "Not comparable with the paper's numbers: 20 of 200 classes",
        ):
            assert text.count(words) == 1, words
    page, text = pages(made.root, *others)
    assert "first, second and third: 7 of 8 planned runs finished (7 begun), 3 tasks" in page
    assert text.startswith("# Does dynamic convolution pay?") and "second: Not asked." in text
    page, text = pages(others[0])
    assert "second: 1 of 1 planned runs finished, 1 task<" in page
    assert "pay?" not in text.replace("does it pay?", "") and text.startswith("# What static networks reach")


def test_archives_that_are_none(fabricate, tmp_path: Path, capsys) -> None:
    """A folder of weights or a configuration in it would be loaded, and run."""
    made = fabricate("mine").task("images", "timm", {"static": [0.6], "odconv": [0.63]})
    out = tmp_path / "out"
    assert cli.run(["report", str(made.root), "--no-pictures", "--out", str(out)]) == 0
    good = (out / "records.zip").read_bytes()
    evil = tmp_path / "evil.zip"
    evil.write_bytes(good)
    with zipfile.ZipFile(evil, "a") as file:
        for name in ("config.py", "run/config.py", "../../escaped.py"):
            file.writestr(f"mine/images/static/seed0/{name}", "raise SystemExit(3)")
    (tmp_path / "scratch").mkdir()
    (folder,) = unpacked([evil], tmp_path / "scratch")
    assert {p.name for p in folder.rglob("*") if p.is_file()} == {
        "study.yaml",
        "costs.json",
        "cell.json",
        "metrics.json",
    }
    assert not list(tmp_path.rglob("escaped.py"))
    capsys.readouterr()
    damaged = tmp_path / "damaged.zip"
    for at in range(60, len(good), len(good) // 12):
        damaged.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        try:
            assert cli.run(["report", str(damaged), "--no-pictures", "--out", str(tmp_path / "again")]) == 0
        except UserError as e:
            assert str(damaged) in str(e) and "\n" not in str(e)
    with pytest.raises(UserError, match=r"mine/records.zip is not a folder: say --out DIR"):
        shutil.copy(out / "records.zip", made.root / "records.zip")
        cli.run(["report", str(made.root / "records.zip")])


def edit(folder: Path, name: str = "cell.json", **changes) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
