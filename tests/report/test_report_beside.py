"""The paper's and others' numbers beside ours, and what models cost."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from made import STATIC, study_of

from dynconv_plugins.report import published, tables
from dynconv_plugins.report.between import between
from dynconv_plugins.report.caveats import caveats
from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.compare import compare, p_value
from dynconv_plugins.report.cost_table import costs
from dynconv_plugins.report.gains import gains, note, own_test
from dynconv_plugins.report.losses import smoothed
from dynconv_plugins.report.overview import overview
from dynconv_plugins.report.run_table import runs
from dynconv_plugins.report.statistics import holm, paired, welch
from dynconv_plugins.report.summary import answer, heading
from dynconv_plugins.report.tuned import recipes
from dynconv_plugins.report.verdicts import Verdict


def test_dynamic_models_against_each_other(fabricate) -> None:
    up, down = [s + 0.05 for s in STATIC], [s + 0.01 for s in STATIC]
    up[0] += 0.002
    down[1] += 0.001
    _, task, _ = study_of(fabricate, {"static": STATIC, "odconv": up, "hard": down, "dyconv": STATIC})
    (table,) = between(task)
    assert [h.text for h in table.heads[1:]] == [row[0].text for row in table.rows] == ["ODConv", "hard", "DyConv"]
    expected = paired(up, down)
    assert table.rows[0][2].raw == pytest.approx(100 * expected.summary.mean)
    assert table.rows[1][1].raw == -table.rows[0][2].raw and table.rows[1][1].note == table.rows[0][2].note
    p = [paired(*pair).p for pair in ((up, down), (up, STATIC), (down, STATIC))]
    assert table.rows[0][2].note == p_value(holm(p)[0])
    _, task, _ = study_of(fabricate, {"static": STATIC[:2], "odconv": up[:2], "hard": down[:2]})
    assert between(task) == []


def test_folds_of_the_papers_networks(fabricate) -> None:
    own = published.folds()
    scores = {"static": own["CNN"]["accuracy"], "odconv": own["D-CNN"]["accuracy"]}
    losses = {"static": own["CNN"]["loss"], "odconv": own["D-CNN"]["loss"]}
    study, task, rows = study_of(fabricate, scores, host="tsai", networks=("Net1",), folds=True, losses=losses)
    assert task.folded and rows[1].verdict is Verdict.BETTER
    assert rows[1].p == pytest.approx(paired(scores["odconv"], scores["static"], 78 / 703).p)
    table = runs(task)
    assert [row[0].text for row in table.rows[2:]] == ["the paper's CNN", "the paper's D-CNN"]
    assert "says neither" in published.left_open(task)
    ours_apart = "widths and kernel sizes of our own", "|x| and |dx| as inputs", "twice the recipe's epochs in all"
    assert all(words in published.not_comparable(task) for words in ours_apart)
    results = tables.results(task, rows)
    place = [h.title for h in results.heads].index("ours less the paper's (points, not comparable)")
    assert [row[place].text for row in results.rows] == ["+0.0", "+0.0"] and results.rows[1][place].raw < 0.05
    assert len(table.heads) == 13 and table.rows[0][1].text == "50.6" and table.rows[0][1].note == "1.461"
    assert [table.rows[0][11].text, table.rows[1][11].text] == ["57.1", "65.3"]
    assert published.published(task, rows[0].model).score == 0.571
    assert published.published(task, rows[1].model).score == 0.653
    assert "corrected" in tables.tests(task, rows).heads[3].text
    assert "78 test samples in each fold" in " ".join(caveats(study, {"task": rows})["task"])


def test_our_gains_stand_beside_the_papers(fabricate) -> None:
    """Each with the interval of one test, none corrected, and their difference with its own."""
    own = published.folds()["CNN"]["accuracy"]
    noise = [0.06, -0.06, 0.05, -0.05, 0.04, -0.04, 0.03, -0.03, 0.02, -0.02]
    wide = [s + 2.5 * n for s, n in zip(own, noise, strict=True)]
    scores = {"static": own, "odconv": wide, "hard": wide[:2]}
    _, task, rows = study_of(fabricate, scores, host="tsai", networks=("Net1",), folds=True)
    table = gains(task, rows)
    assert [row[0].text for row in table.rows] == ["ODConv", "the paper's D-CNN"], "two folds have no interval"
    theirs, ours = own_test().summary, paired(wide, own, 78 / 703).summary
    for row, gain in zip(table.rows, (ours, theirs), strict=True):
        assert row[1].span == pytest.approx((100 * gain.low, 100 * gain.high))
    expected = welch(ours, theirs)
    assert table.rows[0][2].text == "−8.2" and table.rows[0][2].span == pytest.approx(
        (100 * expected.low, 100 * expected.high)
    )
    assert "outside" not in note() and "p = 0.0062" in note() and "corrected for" not in note()
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": STATIC})
    assert gains(task, rows) is None, "the paper shows no runs of its other tables"


def test_recipes_that_are_being_chosen_stand_side_by_side(fabricate) -> None:
    """The best first for each host and data, with differences over common runs; a static network has its score."""
    data = {"name": "Adiac, training series only", "train": 292, "test": 98, "classes": 37, "tuning": True}
    noise = (0.01, -0.01, 0.02, -0.02, 0.0)
    better = [s + 0.1 + n for s, n in zip(STATIC, noise, strict=True)]
    made = fabricate().task("plain", "tsai", {"static": STATIC, "odconv": STATIC}, ("FCN",), True, data=data)
    made.task("mixed", "tsai", {"static": better}, ("FCN",), True, data=data)
    made.task("images", "timm", {"static": [0.24]}, data={"name": "Tiny", "test": 200, "tuning": True})
    study = collect([made.root])
    table = recipes(list(study.tasks.values()))
    assert [row[0].text for row in table.rows] == ["mixed", "plain", "images"] and table.breaks == {2}
    columns = [h.text for h in table.heads]
    assert columns == ["Task", "static", "ODConv", "static, less the best"]
    assert [row[1].text for row in table.rows] == ["70.8", "60.8", "24.0"]
    expected = paired(STATIC, better, 98 / 292).summary
    assert table.rows[1][3].text == "−10.0" and table.rows[1][3].span == pytest.approx(
        (100 * expected.low, 100 * expected.high)
    )
    answers = [answer(task, compare(task)) for task in study.tasks.values()]
    assert [row[2].text for row in overview(answers).rows] == ["60.8", "70.8", "24.0"]
    tuned = list(study.tasks.values())
    assert heading(tuned) == "Which recipe trains best?"
    _, task, _ = study_of(fabricate, {"static": STATIC})
    assert recipes([task]) is None and heading([*tuned, task]) == "Does dynamic convolution pay?"


@pytest.mark.parametrize(
    ("host", "recipe", "options", "smooth"),
    [
        ("tsai", "study", {"label_smoothing": 0.1}, True),
        ("tsai", "study", {"label_smoothing": 0}, False),
        ("tsai", "nobody's", {}, False),
        ("timm", "tiny_imagenet_64", {}, False),
        ("tsai", "strong", {}, True),
    ],
)
def test_losses_with_label_smoothing_are_called_that(fabricate, host, recipe, options, smooth: bool) -> None:
    """tsai's curves are of the loss that it minimises, its table of plain cross-entropy."""
    if recipe == "strong":
        pytest.importorskip("tsai")
    _, task, rows = study_of(fabricate, {"static": [0.6]}, host=host, recipe=recipe, options=options)
    assert smoothed(task) == smooth
    assert smoothed(task, training=True) == (smooth or host == "timm")  # whose own validation is plain
    assert ("with label smoothing; the test loss of the tables is not" in tables.results(task, rows).about) == smooth


def test_times_are_the_processors_and_none_of_a_killed_run(fabricate) -> None:
    made = fabricate().task("task", "timm", {"static": [0.5, 0.5, 0.5], "odconv": [0.6, 0.6, 0.6]})
    for path in made.root.glob("task/*/*/cell.json"):
        record = json.loads(path.read_text())
        dynamic = record["operator"] == "odconv"
        record |= {"seconds": 50.0 if dynamic else 100.0, "processor_seconds": 30.0 if dynamic else 20.0}
        record |= {"attempts": 2, "processor_seconds": 1.0} if record["seed"] == 2 and dynamic else {"attempts": 1}
        path.write_text(json.dumps(record))
    _, row = compare(collect([made.root]).tasks["task"])
    assert row.ratio("seconds") == pytest.approx(1.5), "50 s of wall clock say what ran beside it"
    for path in made.root.glob("task/*/*/cell.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": {"cpu": "x", "gpu": "H200"}}))
    _, row = compare(collect([made.root]).tasks["task"])
    assert row.ratio("seconds") == pytest.approx(0.5)


def test_a_mean_time_and_its_ratio_are_of_the_same_runs(fabricate) -> None:
    made = fabricate().task("task", "timm", {"static": [0.5, 0.5], "odconv": [0.6, 0.6]})
    for path in made.root.glob("task/*/*/cell.json"):
        record = json.loads(path.read_text())
        killed = record["operator"] == "static" and record["seed"] == 0
        spent = 60.0 * (1 + record["seed"]) * (2 if record["operator"] == "odconv" else 1)
        path.write_text(json.dumps(record | {"seconds": spent, "attempts": 2 if killed else 1}))
    task = collect([made.root]).tasks["task"]
    table = costs(task, compare(task))
    place = [h.text for h in table.heads].index("training")
    assert [(row[place].text, row[place].note) for row in table.rows] == [("2.00", ""), ("4.00", "2.00×")]


def test_a_mean_and_its_interval_have_the_same_digits(fabricate) -> None:
    made = fabricate().task("task", "timm", {"static": [0.5, 0.5, 0.5]})
    for path in made.root.glob("task/*/*/cell.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"memory_mb": 1070.4 + 10 * record["seed"], "seconds": 462.0}))
    task = collect([made.root]).tasks["task"]
    table = costs(task, compare(task))
    row = dict(zip([h.text for h in table.heads], table.rows[0], strict=True))
    memory = row["memory of the training process"]
    assert (memory.text, memory.note) == ("1,080", "1,056 to 1,105")
    assert (row["training"].text, row["training"].note) == ("7.70", "7.70 to 7.70")


def test_a_latency_that_was_disturbed_is_said(fabricate) -> None:
    made = fabricate().task("task", "timm", {"static": [0.5], "odconv": [0.6]})

    def said() -> str:
        study = collect([made.root])
        return " ".join(caveats(study, {"task": compare(study.tasks["task"])})["task"])

    assert "varied" not in said()
    path = made.root / "task" / "costs.json"
    costs = json.loads(path.read_text())
    costs["models"]["odconv"]["latency_ms"]["1"] = [90.0, 145.0, 348.0]
    path.write_text(json.dumps(costs))
    assert "The latency of ODConv varied by more than half" in said()
