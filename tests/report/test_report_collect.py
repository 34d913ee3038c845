"""Reading studies: everything that can be wrong with a cell is a line, nothing a crash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from dynconv_plugins.errors import UserError
from dynconv_plugins.report.archive import pack, unpacked
from dynconv_plugins.report.build import build
from dynconv_plugins.report.caveats import caveats
from dynconv_plugins.report.collect import collect, missing_line
from dynconv_plugins.report.compare import compare
from dynconv_plugins.report.unstarted import lacking

SCORES = {"static": [0.60, 0.61, 0.62], "odconv": [0.63, 0.65, 0.64]}


def edit(folder: Path, name: str = "cell.json", **changes) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_whole_study(fabricate) -> None:
    study = collect([fabricate().task("images", "timm", SCORES).root])
    task = study.tasks["images"]
    assert [m.key for m in task.ordered()] == ["static", "odconv"]
    assert [r.score for r in task.models["odconv"].results.values()] == SCORES["odconv"]
    assert task.models["odconv"].label == "ODConv" and task.twin(task.models["odconv"]).key == "static"
    assert not task.folded and missing_line(task) == "" and study.notes == []
    assert task.models["odconv"].costs.latency(64) == pytest.approx(510 * 1.03)


def test_every_kind_of_broken_cell_is_named(fabricate) -> None:
    made = fabricate().task("images", "timm", {"static": [0.6] * 9, "odconv": [0.7] * 9})
    root = made.root / "images" / "odconv"
    edit(root / "seed1", status="failed", error="exit code 1:\n RuntimeError: no memory")
    edit(root / "seed2", status="running")
    (root / "seed3" / "cell.json").unlink()
    (root / "seed4" / "cell.json").write_text('{"format": 1, "inp')
    (root / "seed5" / "metrics.json").write_bytes(b"\x00\xff\xfe")
    (root / "seed6" / "metrics.json").unlink()
    edit(root / "seed7", "metrics.json", score=float("nan"))
    edit(root / "seed8", "metrics.json", score=64.2)
    task = collect([made.root]).tasks["images"]
    cells = task.models["odconv"].cells
    found = {unit: (cell.status, cell.why) for unit, cell in cells.items()}
    assert found["seed0"][0] == "done" and list(task.models["odconv"].results) == ["seed0"]
    assert found["seed1"] == ("failed", "exit code 1: RuntimeError: no memory")
    assert found["seed2"][0] == "running"
    assert found["seed3"] == ("missing", "it has not been started")
    assert found["seed4"][0] == "damaged" and "cell.json is damaged" in found["seed4"][1]
    assert found["seed5"][0] == "damaged" and "metrics.json is damaged" in found["seed5"][1]
    assert found["seed6"] == ("damaged", "metrics.json is not there")
    assert "no score" in found["seed7"][1] and "no score" in found["seed8"][1]
    assert missing_line(task) == "8 of 18 cells have no result: 1 failed, 5 damaged, 1 running, 1 not started."


def test_what_has_not_been_started_is_told_by_network(fabricate) -> None:
    keys = [f"{n}-{o}" for n in ("FCN", "ResNet", "Net1") for o in ("static", "odconv", "hard")]
    made = fabricate().task("series", "tsai", dict.fromkeys(keys, [0.5]), networks=["FCN", "ResNet", "Net1"])
    for key in ("FCN-hard", *keys[3:]):
        shutil.rmtree(made.root / "series" / key)
    study = collect([made.root])
    told = "FCN: hard; ResNet, Net1: static, ODConv, hard"
    assert study.notes == [f"Models of the plan's task series that have not been started: {told}."]
    assert [m.key for m in study.tasks["series"].ordered()] == ["FCN-static", "FCN-odconv"]

    made = fabricate().task("images", "timm", {"static": [0.5], "odconv": [0.5], "hard": [0.5]})
    made.task("a", "timm", {"static": [0.5]}).task("b", "timm", {"static": [0.5, 0.6]})
    shutil.rmtree(made.root / "images" / "hard")
    for name in "ab":
        shutil.rmtree(made.root / name)
    assert collect([made.root]).notes == [
        "Models of the plan's task images that have not been started: hard.",
        "Tasks of the plan that have not been started: a (1 cell), b (2 cells).",
    ]


def test_cells_that_only_wait_share_a_line(fabricate) -> None:
    made = fabricate().task("images", "timm", {k: [0.5] * 5 for k in ("static", "odconv", "hard", "dyconv")})
    for place in ("odconv/seed[1-4]", "hard/seed[1-4]", "dyconv/seed[13]"):
        for path in made.root.glob(f"images/{place}"):
            shutil.rmtree(path)
    edit(made.root / "images/static/seed2", status="failed", error="no memory")
    failed, missing = lacking(collect([made.root]).tasks["images"])
    assert failed == ("images/static/seed2", "failed", "no memory")
    told = "not started: ODConv and hard (seeds 1 to 4); DyConv (seed 1 and seed 3)"
    assert missing == ("images: 10 cells", "missing", told)
    for path in made.root.glob("images/[oh]*"):
        shutil.rmtree(path)
    made.cell("images", "timm", "dyconv", 3, 0.5, 1.0, False, 5, ["resnet18"], (), {})
    _, alone = lacking(collect([made.root]).tasks["images"])
    assert alone == ("images/dyconv/seed1", "missing", "it has not been started")


def test_runs_that_nobody_asked_for_yet_are_a_line(fabricate) -> None:
    """As after ``--seeds 1`` of a plan of three."""
    made = fabricate().task("images", "timm", {"static": [0.6] * 3, "odconv": [0.7] * 3})
    for path in made.root.glob("images/*/seed[12]"):
        shutil.rmtree(path)
    study = collect([made.root])
    task = study.tasks["images"]
    assert study.notes == [
        "Runs of the plan's task images that have not been started, of any model: seed 1 and seed 2."
    ]
    assert missing_line(task) == "4 of 6 cells have no result: 4 not started." and task.units == ["seed0"]


def test_a_plan_is_counted_whole(fabricate, tmp_path: Path) -> None:
    """What nobody has started has no rows, but is no less planned for that."""
    made = fabricate().task("images", "timm", {"static": [0.6] * 3, "odconv": [0.7] * 3, "hard": [0.5] * 3})
    made.task("series", "tsai", {"static": [0.6] * 2})
    for path in (*made.root.glob("images/*/seed2"), made.root / "images/hard", made.root / "series"):
        shutil.rmtree(path)
    edit(made.root / "images/odconv/seed1", status="failed", error="no memory")
    study = collect([made.root])
    assert [len(t.cells) for t in study.tasks.values()] == [4]
    assert missing_line(study.tasks["images"]) == "6 of 9 cells have no result: 1 failed, 5 not started."
    build(study, tmp_path / "out", pictures=False)
    assert "study: 3 of 11 planned runs finished (4 begun), 1 task<" in (tmp_path / "out/index.html").read_text()
    (made.root / "study.yaml").unlink()
    build(collect([made.root]), tmp_path / "out", pictures=False)
    assert "3 of 4 runs finished (4 begun), 1 task<" in (tmp_path / "out/index.html").read_text()


def test_only_the_common_units_are_paired(fabricate) -> None:
    made = fabricate().task("images", "timm", {"static": [0.6, 0.5, 0.7, 0.6], "odconv": [0.7, 0.65, 0.8, 0.75]})
    (made.root / "images" / "static" / "seed1" / "metrics.json").unlink()
    row = compare(collect([made.root]).tasks["images"])[1]
    assert row.pair.summary.n == 3 and row.pair.summary.mean == pytest.approx((0.1 + 0.1 + 0.15) / 3)
    assert row.scores.n == 4


def test_the_curve_may_have_holes(fabricate) -> None:
    made = fabricate().task("images", "timm", SCORES)
    curve = {"unit": "epoch", "steps": [1, 2, 3], "train_loss": [1.0, None, "x"], "valid_loss": [1.0]}
    edit(made.root / "images/static/seed0", "metrics.json", curve=curve, loss=None, per_class=None)
    read = collect([made.root]).tasks["images"].models["static"].results["seed0"]
    assert read.loss is None and read.per_class == {}
    np.testing.assert_array_equal(read.curve.train_loss, [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(read.curve.valid_loss, [1.0, np.nan, np.nan])
    assert np.isnan(read.curve.valid_score).all()
    for broken in ({"steps": "no"}, {"unit": "epoch"}, [], {"steps": [None]}):
        edit(made.root / "images/static/seed0", "metrics.json", curve=broken)
        assert collect([made.root]).tasks["images"].models["static"].results["seed0"].curve is None


@pytest.mark.parametrize("text", ["{", "[]", '{"models": 3}', '{"models": {"static": {"latency_ms": {"1": "x"}}}}'])
def test_damaged_costs_are_left_out(fabricate, text: str) -> None:
    made = fabricate().task("images", "timm", SCORES)
    (made.root / "images" / "costs.json").write_text(text)
    task = collect([made.root]).tasks["images"]
    costs = task.models["static"].costs
    assert costs is None or costs.latency(1) is None
    assert bool(task.notes) == (costs is None)


def test_two_machines_are_united(fabricate) -> None:
    first = fabricate("first").task("images", "timm", {"static": [0.6, 0.61], "odconv": [0.63, 0.66]})
    second = fabricate("second").task("images", "timm", {"static": [0.6, 0.61, 0.62], "odconv": [0.63, 0.66, 0.64]})
    second.task("series", "tsai", SCORES)
    second.costs("images", ["static", "odconv"], speed=9.0)
    study = collect([first.root, second.root])
    assert list(study.tasks) == ["images", "series"]
    row = compare(study.tasks["images"])[1]
    assert row.pair.summary.n == 3, "cells of both, each once"
    assert row.ratio("latency1") == pytest.approx(1.03), "both from one measurement, whichever machine it was"
    assert len(collect([first.root, first.root]).cells) == 4


def test_a_result_replaces_a_failure_elsewhere(fabricate) -> None:
    first = fabricate("first").task("images", "timm", SCORES)
    second = fabricate("second").task("images", "timm", SCORES)
    edit(first.root / "images/odconv/seed1", status="failed", error="killed")
    for order in ([first.root, second.root], [second.root, first.root]):
        assert len(collect(order).tasks["images"].models["odconv"].results) == 3


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("recipe", {"recipe": "modern"}),
        ("options", {"options": {"epochs": 3}}),
        ("data", {"data": {"name": "VOC 2012", "train": 9, "test": 9, "classes": 21}}),
        ("host, data", {"host": "mmseg"}),
        ("network", {"networks": ("mobilenetv2_050",)}),
    ],
)
def test_tasks_that_only_share_their_name_are_not_one(fabricate, tmp_path, what: str, change: dict) -> None:
    first = fabricate("first").task("images", "timm", SCORES)
    scores = {model: values[:2] for model, values in SCORES.items()}
    second = fabricate("second+big").task("images", **{"host": "timm", "scores": scores, **change})
    study = collect([first.root, second.root])
    assert list(study.tasks) == ["first-images", "second-big-images"]
    assert [len(task.cells) for task in study.tasks.values()] == [6, 4]
    assert all(task.models["static"].costs for task in study.tasks.values())
    told = f"The tasks called images differ in {what} and are not one: here first-images and second-big-images."
    assert study.notes == [told]
    pack(study, tmp_path / "records.zip")
    again = collect(list(unpacked([tmp_path / "records.zip"], tmp_path / "scratch")))
    assert again.tasks.keys() == study.tasks.keys() and all(t.models["static"].costs for t in again.tasks.values())


def test_two_results_of_one_cell_are_an_error_that_names_it(fabricate) -> None:
    first = fabricate("first").task("images", "timm", SCORES)
    second = fabricate("second").task("images", "timm", {**SCORES, "odconv": [0.63, 0.60, 0.64]})
    with pytest.raises(
        UserError, match=r"images/odconv/seed1 has two different results: 0\.6500 in .*first.* and 0\.6000 in .*second"
    ):
        collect([first.root, second.root])


def test_folders_without_a_study(tmp_path: Path, fabricate) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="holds no study"):
        collect([tmp_path])
    made = fabricate().task("images", "timm", SCORES)
    (made.root / "study.yaml").unlink()
    study = collect([made.root])
    assert len(study.cells) == 6 and "no study.yaml" in study.notes[0]
    (made.root / "study.yaml").write_text("tasks: [")
    assert "cannot be used" in collect([made.root]).notes[0]


def test_cells_beside_the_plan_and_other_conditions_are_noted(fabricate) -> None:
    made = fabricate().task("images", "timm", SCORES)
    made.cell("images", "timm", "hard", 0, 0.5, 1.0, False, 3, ["resnet18"], (), {"recipe": "another"})
    study = collect([made.root])
    assert "1 cell of study is not in its plan" in study.notes[0]
    assert any("differ in recipe (study; another)" in n for n in study.tasks["images"].notes)
    said = caveats(study, {t.name: compare(t) for t in study.tasks.values()})
    assert any("differ in recipe" in line for line in said["images"])
