"""The command: what it writes, what it leaves alone, and how it ends when something is wrong."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("rich")
pytest.importorskip("yaml")

from dynconv_plugins import cli
from dynconv_plugins.errors import UserError
from dynconv_plugins.report import build as building


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
    for path in root.glob("*/*/*/cell.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"data": record["data"] | {"valid": 0}}))
    assert "validation" not in said() and "followed on the test set" in said()
