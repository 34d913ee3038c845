"""What a report says of studies that are unlike those that this project has run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from made import STATIC, study_of

from dynconv_plugins.errors import UserError
from dynconv_plugins.report.build import build
from dynconv_plugins.report.caveats import caveats
from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.compare import compare
from dynconv_plugins.report.cost_table import costs
from dynconv_plugins.report.floor import constant_pixels, floor
from dynconv_plugins.report.places import placeless_record
from dynconv_plugins.report.published import left_open, not_comparable
from dynconv_plugins.report.statistics import holm, paired
from dynconv_plugins.report.summary import answer
from dynconv_plugins.report.tuned import recipes
from dynconv_plugins.report.verdicts import Verdict

NOISE = (0.03, -0.03, 0.02, -0.02, 0.0)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(("score", "learned"), [(0.9, True), (0.78, True), (0.7, False)])
def test_a_frequent_class_leaves_room_above_it(fabricate, score: float, learned: bool) -> None:
    made = fabricate().task("task", "tsai", {"static": [score]}, networks=("FCN",))
    for path in made.root.glob("task/*/*/metrics.json"):
        edit(path, constant_score=0.64)
    rows = compare(collect([made.root]).tasks["task"])
    assert (floor(rows) == "") == learned


def test_pixels_of_the_most_frequent_class_are_those_that_were_counted(fabricate) -> None:
    """Not what the classes with an IoU make of them, where every network names one that is nowhere."""
    made = fabricate().task("task", "mmseg", {"static": [0.3]}, per_class=("background", "cat", "boat"))
    for path in made.root.glob("task/*/*/metrics.json"):
        edit(path, constant_score=0.33, constant_pixels=0.66, pixel_accuracy=0.7)
    assert constant_pixels(compare(collect([made.root]).tasks["task"])) == 0.66


@pytest.mark.parametrize("together", [True, False], ids=["in-one-folder", "in-two"])
def test_other_contents_are_other_data(fabricate, together: bool) -> None:
    first = fabricate("first").task("task", "timm", {"static": [0.6, 0.61, 0.62]})
    second = fabricate("second").task("task", "timm", {"static": [0.5, 0.51, 0.52]})
    for made, held in ((first, "one"), (second, "two")):
        for path in made.root.glob("task/*/*/cell.json"):
            corrected = together and path.parent.name == "seed0"
            edit(path, data=json.loads(path.read_text())["data"] | {"contents": "corrected" if corrected else held})
    if together:
        (line,) = collect([first.root]).tasks["task"].notes
        assert line == "Its cells differ in what the data hold (correcte; one): compare with care."
    else:
        assert list(collect([first.root, second.root]).tasks) == ["first-task", "second-task"]


def test_what_would_have_been_seen_leaves_decided_tests_out(fabricate) -> None:
    """Holm corrects the others for those alone that are not decided."""
    worse = [s - 0.3 + n / 10 for s, n in zip(STATIC, NOISE, strict=True)]
    scores = {"static": STATIC, "hard": worse, "odconv": [s + n for s, n in zip(STATIC, NOISE, strict=True)]}
    _, task, rows = study_of(fabricate, scores)
    assert [r.verdict for r in rows][1:] == [Verdict.WORSE, Verdict.OPEN]
    words = answer(task, rows).text.partition("a mean gain below about ")[2]
    least = float(words.split()[0]) / 100
    for gain, seen in ((least - 0.001, False), (least + 0.001, True)):
        moved = [s + n + gain for s, n in zip(STATIC, NOISE, strict=True)]
        ps = [paired(worse, STATIC).p, paired(moved, STATIC).p]
        assert (holm(ps)[1] < 0.05) == seen


def test_a_twin_without_a_result_is_no_missing_twin(fabricate) -> None:
    made = fabricate().task("task", "timm", {"static": STATIC, "odconv": STATIC})
    for path in made.root.glob("task/static/*/cell.json"):
        edit(path, status="failed", error="killed")
    study = collect([made.root])
    task = study.tasks["task"]
    rows = compare(task)
    assert rows[1].verdict is Verdict.TWIN_WAITS and answer(task, rows).word == "Too early to say"
    assert "no static twin" not in " ".join(caveats(study, {"task": rows})["task"])


def test_without_a_twin_costs_are_not_called_missing(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"odconv": STATIC})
    made = answer(task, rows)
    assert made.word == "Cannot be said" and "not measured" not in made.text and not made.text.endswith(" ")
    assert costs(task, rows) is not None


@pytest.mark.parametrize(("host", "told"), [("timm", "1234123 then abcdef0"), ("tsai", "abcdef0")])
def test_a_run_that_was_started_again_is_of_its_last_commit(fabricate, host: str, told: str) -> None:
    """tsai's trainer has no checkpoint to go on from."""
    made = fabricate().task("task", host, {"static": STATIC, "odconv": STATIC})
    (path,) = made.root.glob("task/odconv/seed0/cell.json")
    edit(path, earlier=[{"git": {"commit": "1234123412"}}], attempts=2)
    study = collect([made.root])
    notes = " ".join(study.tasks["task"].notes)
    assert (told in notes) == (host == "timm") and ("1234123" in notes) == (host == "timm")


def test_recipes_are_ranked_by_the_runs_that_all_have(fabricate) -> None:
    data = {"name": "Adiac, training series only", "train": 292, "test": 98, "classes": 37, "tuning": True}
    made = fabricate().task("begun", "tsai", {"static": [0.7]}, ("FCN",), True, data=data)
    made.task("whole", "tsai", {"static": [0.8, 0.5, 0.5, 0.5]}, ("FCN",), True, data=data)
    table = recipes(list(collect([made.root]).tasks.values()))
    assert [row[0].text for row in table.rows] == ["whole", "begun"] and table.rows[1][-1].text == "−10.0"


def test_fixed_epochs_are_claimed_of_no_recipe(fabricate) -> None:
    scores = {"Net1-static": STATIC, "Net1-odconv": STATIC}
    _, task, _ = study_of(fabricate, scores, host="tsai", networks=("Net1",), folds=True, options={"epochs": 10})
    assert "10 of its 30 epochs" in not_comparable(task) and "twice the recipe's" in not_comparable(task)
    assert "30 epochs" not in left_open(task) and "as many again" in left_open(task)


def test_a_task_that_nobody_has_started_renames_no_other(fabricate) -> None:
    first = fabricate("first").task("folds", "tsai", {"static": [0.6]}, ("FCN",))
    second = fabricate("second").task("folds", "timm", {"static": [0.6]}).task("other", "timm", {"static": [0.6]})
    for path in second.root.glob("folds/*/*"):
        (path / "cell.json").unlink()
    study = collect([first.root, second.root])
    assert list(study.tasks) == ["folds", "other"]
    assert study.notes == ["Tasks of the plan that have not been started: folds of second (1 cell)."]


def test_a_study_that_has_not_been_started_is_called_that(fabricate, tmp_path: Path) -> None:
    made = fabricate().task("task", "timm", {"static": STATIC})
    for path in made.root.glob("task/*/*/cell.json"):
        edit(path, status="waiting")
    with pytest.raises(UserError, match="has been started"):
        build(collect([made.root]), tmp_path / "out", pictures=False)


def test_data_that_a_study_has_made_lie_below_it(tmp_path: Path) -> None:
    """Also where its folder is a link, or the study has moved since."""
    for root in (tmp_path / "link/quick", Path("/elsewhere/quick")):
        path = f"{tmp_path}/link/quick/data/series/ed8b7a7d/diatoms/UCR"
        record = {"command": ["python", "--data", path], "data": {"path": path}}
        assert placeless_record(record, root, "series/static/seed0")["command"][2] == (
            "quick/data/series/ed8b7a7d/diatoms/UCR"
        )
