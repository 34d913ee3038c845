"""What a report may claim of few runs, of some models among many, and of models that are one and the same."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from made import STATIC, study_of

from dynconv_plugins.report import tables
from dynconv_plugins.report.between import between
from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.compare import compare, overlap, p_value
from dynconv_plugins.report.cost_table import costs
from dynconv_plugins.report.floor import constant_pixels, floor
from dynconv_plugins.report.overview import overview
from dynconv_plugins.report.statistics import holm, paired, resolution
from dynconv_plugins.report.summary import answer, budget, heading

NOISE = (0.03, -0.03, 0.02, -0.02, 0.0)


def noisy(by: float, scale: float = 1.0) -> list[float]:
    return [s + by + scale * n for s, n in zip(STATIC, NOISE, strict=True)]


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def predict(root: Path, seed: int, **right: int) -> None:
    """Predictions of which the first `right` of 100 are right, by model."""
    truth = np.arange(100) % 20
    for key, count in right.items():
        folder = root / "task" / key / f"seed{seed}"
        np.savez(folder / "predictions.npz", truth=truth, predicted=np.where(np.arange(100) < count, truth, -1))
        edit(folder / "metrics.json", predictions="predictions.npz", score=count / 100)


@pytest.mark.parametrize("up", [(0.05, 0.05), (0.05, 0.06)])
def test_a_difference_of_two_runs_has_no_interval_anywhere(fabricate, up) -> None:
    two = [s + u for s, u in zip(STATIC[:2], up, strict=True)]
    _, task, rows = study_of(fabricate, {"static": STATIC[:2], "odconv": two})
    for table in (tables.results(task, rows), tables.tests(task, rows), overview([answer(task, rows)])):
        columns = [h.text for h in table.heads]
        place = next(i for i, name in enumerate(columns) if name in ("against static", "difference"))
        assert all(not row[place].note and row[place].span is None for row in table.rows)
        (line,) = [r for r in csv.DictReader(io.StringIO(table.csv())) if "ODConv" in r.values()]
        named = f"{columns[place]} (points)"
        assert float(line[named]) == pytest.approx(100 * sum(up) / 2) and f"{named}: low" not in line
    assert "CI" not in answer(task, rows).text


def test_untested_models_are_counted_and_named(fabricate) -> None:
    scores = {"static": STATIC, "odconv": noisy(0.01), "dyconv": noisy(0.0)}
    _, task, rows = study_of(fabricate, scores | {"hard": [0.5], "localsoft": [0.8]})
    said = answer(task, rows).text
    assert "Of the 2 dynamic models that could be tested (of 4), none beats its static twin." in said
    assert "Not tested: hard and local soft (highest mean: local soft, 80.0% from one run)." in said
    _, task, rows = study_of(fabricate, scores)
    said = answer(task, rows).text
    assert said.startswith("No dynamic model beats its static twin.") and "Not tested" not in said
    assert "highest mean of all" not in said, "it is the best"
    _, task, rows = study_of(fabricate, scores | {"odconv": noisy(-0.001), "dyconv": noisy(-0.01)})
    assert "The highest mean of all is static's: 60.8%." in answer(task, rows).text, "of one network as of several"


def test_what_would_not_have_been_seen_is_a_range_over_models(fabricate) -> None:
    scores = {"static": STATIC, "odconv": noisy(0.001, 0.5), "dyconv": noisy(0.001, 2)}
    _, task, rows = study_of(fabricate, scores)
    low, high = (f"{100 * resolution(r.pair.summary, 2):.1f}" for r in rows[1:])
    assert float(low) < float(high)
    assert f"a mean gain below about {low} to {high} points, depending on the model, would" in answer(task, rows).text


def test_a_correction_is_for_the_tests_that_were_made(fabricate) -> None:
    scores = {"static": STATIC, "odconv": noisy(0.01), "dyconv": noisy(0.02, 0.7), "hard": [0.5], "dcd": [0.5]}
    _, task, rows = study_of(fabricate, scores)
    assert {r.tests for r in rows} == {2}
    assert "corrected for the 2 models that could be tested" in tables.results(task, rows).about
    assert "correction for the 2 models that could be tested" in tables.tests(task, rows).about
    (table,) = between(task)
    assert "for the one pair that could be tested" in table.about


def test_models_that_predict_the_same_are_one_test(fabricate) -> None:
    made = fabricate().task("task", "timm", {k: [0.5] * 4 for k in ("static", "a2d2c", "a2d2cplus", "odconv")})
    counts = {"static": (50, 52, 49, 53), "a2d2c": (55, 53, 56, 54), "odconv": (54, 57, 50, 60)}
    for seed in range(4):
        right = {key: values[seed] for key, values in counts.items()}
        predict(made.root, seed, **right, a2d2cplus=right["a2d2c"])
    task = collect([made.root]).tasks["task"]
    rows = {r.model.key: r for r in compare(task)}
    static = np.array(counts["static"]) / 100
    alone = [paired(np.array(counts[key]) / 100, static).p for key in ("a2d2c", "odconv")]
    assert [rows[k].p for k in ("a2d2c", "odconv")] == pytest.approx(holm(alone)), "of two tests, not of three"
    assert rows["a2d2cplus"].p == rows["a2d2c"].p
    once = "A2D2C+ predicts exactly what A2D2C does in every run: the two are counted once."
    assert once in tables.tests(task, list(rows.values())).about
    (table,) = between(task)
    apart = paired(np.array(counts["a2d2c"]) / 100, np.array(counts["odconv"]) / 100).p
    assert [v.note for v in table.rows[0][1:]] == ["", "", p_value(apart)] and "one pair" in table.about
    assert table.rows[1][3].note == p_value(apart), "the double's is the same test"
    predict(made.root, 3, a2d2cplus=40)
    task = collect([made.root]).tasks["task"]
    assert {r.tests for r in compare(task)} == {3}
    assert "counted once" not in tables.tests(task, compare(task)).about


def test_mcnemar_counts_a_double_once(fabricate) -> None:
    made = fabricate().task("task", "timm", {k: [0.5] for k in ("static", "a2d2c", "a2d2cplus", "odconv")})
    predict(made.root, 0, static=50, a2d2c=56, a2d2cplus=56, odconv=58)
    task = collect([made.root]).tasks["task"]
    rows = compare(task)
    table = tables.tests(task, rows)
    place = [h.text for h in table.heads].index("McNemar with Holm")
    a, b = holm([rows[1].exact.p, rows[3].exact.p])
    assert [row[place].raw for row in table.rows] == [a, a, b] and "for 2 such comparisons" in table.about


@pytest.mark.parametrize(("data", "expected"), [({"train": 633, "valid": 70, "test": 78}, 78 / 633), ({}, 1 / 4)])
def test_folds_overlap_by_the_samples_trained_on(fabricate, data: dict, expected: float) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": noisy(0.05)}, host="tsai", folds=True, data=data)
    assert overlap(task) == pytest.approx(expected)
    assert rows[1].p == pytest.approx(paired(noisy(0.05), STATIC, expected).p)
    assert f"(1/n + {expected:.3f})" in tables.results(task, rows).about


def test_naming_the_background_everywhere_has_a_pixel_accuracy_too(fabricate) -> None:
    """As VOC's: 66% of the pixels are background, which is a third class's IoU among three."""
    names = ("background", "cat", "boat", "train")
    made = fabricate().task("task", "mmseg", {"static": [0.3], "odconv": [0.4], "hard": [0.35]}, per_class=names)
    iou = {"background": 0.7, "cat": 0.3, "boat": 0.0}
    for key, right, train in (("static", 0.65, None), ("odconv", 0.7, None), ("hard", 0.66, 0.0)):
        # One network predicts a train where there is none in the images: it alone has an IoU of trains.
        per_class = iou | {"train": train}
        edit(
            made.root / f"task/{key}/seed0/metrics.json", constant_score=0.22, pixel_accuracy=right, per_class=per_class
        )
    task = collect([made.root]).tasks["task"]
    rows = compare(task)
    assert constant_pixels(rows) == pytest.approx(0.66)
    assert "The most frequent class everywhere gets 66.0% of the pixels right; static (65.0%) gets fewer." in floor(
        rows
    )
    assert "would score 22.0%, with 66.0% of the pixels right" in tables.results(task, rows).about


def test_wilsons_intervals_are_marked(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": [0.7], "hard": [0.8] * 3})
    table = tables.results(task, rows)
    assert [row[1].note.endswith(" †") for row in table.rows] == [False, True, True]
    assert table.about.count("†") == 1
    kinds = [r["accuracy (%): interval"] for r in csv.DictReader(io.StringIO(table.csv()))]
    assert kinds == ["t", "Wilson", "Wilson"]
    assert "†" in budget(task, rows).markdown() and "† as above" in budget(task, rows).about
    one = answer(task, rows[:2])
    assert "†" in overview([one]).rows[0][4].note and "†" not in overview([one]).rows[0][2].note
    assert "† One run" in overview([one]).about
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": noisy(0.1)})
    assert "†" not in tables.results(task, rows).about + tables.results(task, rows).markdown()


def test_the_first_table_has_intervals(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": noisy(0.05)})
    (row,) = overview([answer(task, rows)]).rows
    for field, scores in ((row[2], rows[0].scores), (row[4], rows[1].scores)):
        assert field.span == pytest.approx((100 * scores.low, 100 * scores.high)) and " to " in field.note
    assert row[0].note == "Tiny ImageNet, 20 classes, accuracy"


def test_legends_are_of_the_columns_that_are_shown(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": [0.5]}, costs=False)
    about = tables.results(task, rows).about
    for words in ("sd divides", "Against static", "MAdds", "Multiples", "Student's t", "Holm"):
        assert words not in about, words
    about = costs(task, rows).about
    assert "Memory of inference" not in about and "Multiples" not in about and "Latency:" not in about
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": noisy(0.01)})
    about = tables.results(task, rows).about
    for words in ("sd divides", "Against static", "MAdds", "Multiples", "Student's t", "Holm"):
        assert words in about, words


def test_static_networks_alone_are_not_asked_whether_dynamic_ones_pay(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": [0.213]})
    assert answer(task, rows).word == "Not asked" and "highest mean is static's: 21.3%" in answer(task, rows).text
    assert heading([task]) == "What static networks reach"
    shown = overview([answer(task, rows)])
    assert [h.text for h in shown.heads] == ["Task", "does it pay?", "static"] and "best dynamic" not in shown.about
    # A plan that names a dynamic model asks, whether or not it has been started.
    made = fabricate().task("task", "timm", {"static": [0.5], "odconv": [0.6]})
    for path in (made.root / "task/odconv/seed0").iterdir():
        path.unlink()
    task = collect([made.root]).tasks["task"]
    assert answer(task, compare(task)).word == "Too early to say" and heading([task]).startswith("Does dynamic")


@pytest.mark.parametrize(
    ("score", "words"), [(0.62, "1.0 points above"), (0.59, "2.0 points below"), (0.61, "level with")]
)
def test_above_and_below_are_words(fabricate, score: float, words: str) -> None:
    _, _, rows = study_of(fabricate, {"static": [0.61], "odconv": [score]})
    assert rows[1].sentence == f"ODConv is {words} its static twin: too few runs to test."


@pytest.mark.parametrize(("gpu", "where"), [(None, "on 2 CPU threads"), ("NVIDIA H200", "on NVIDIA H200")])
def test_where_costs_were_measured(fabricate, gpu: str | None, where: str) -> None:
    scores = {"static": [0.5], "odconv": [0.5]}
    made = fabricate().task("task", "timm", scores, machine={"cpu": "a processor", "gpu": gpu})
    edit(made.root / "task" / "costs.json", gpu=gpu)
    task = collect([made.root]).tasks["task"]
    about = costs(task, compare(task)).about
    assert f"repeated forward passes {where}, in" in about
    assert ("Memory of the training process: all of it, but for the GPU." in about) == bool(gpu)


def test_costs_of_few_and_of_resumed_runs(fabricate) -> None:
    """An interval ends at nothing, has its unit behind a multiple, and a resumed run's absence is told."""
    made = fabricate().task("task", "timm", {k: [0.5, 0.5] for k in ("static", "odconv", "hard")})
    for path in made.root.glob("task/*/*/cell.json"):
        record = json.loads(path.read_text())
        resumed = record["operator"] == "hard" or (record["operator"] == "static" and record["seed"] == 0)
        edit(path, seconds=60.0 * (1 + 3 * record["seed"]), attempts=2 if resumed else 1)
    task = collect([made.root]).tasks["task"]
    table = costs(task, compare(task))
    place = [h.text for h in table.heads].index("training")
    assert [row[place].text for row in table.rows] == ["4.00", "4.00", "–"]
    assert "static (1 of 2 runs) and hard (2 of 2 runs)." in table.about
    for path in made.root.glob("task/*/*/cell.json"):
        edit(path, attempts=1)
    task = collect([made.root]).tasks["task"]
    table = costs(task, compare(task))
    assert table.rows[0][place].note.startswith("0.00 to ") and table.rows[1][place].note.startswith(
        "1.00×, min 0.00 to"
    )
    assert "resumed" not in table.about and "need not be the quotient of the means shown" in table.about
