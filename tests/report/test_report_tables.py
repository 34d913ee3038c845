"""What the tables, the answers and the published numbers say."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from dynconv_plugins.report import published, tables
from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.commands import command
from dynconv_plugins.report.compare import Verdict, compare
from dynconv_plugins.report.cost_table import costs, references
from dynconv_plugins.report.looks import looks
from dynconv_plugins.report.records import Cell
from dynconv_plugins.report.run_table import runs
from dynconv_plugins.report.summary import answer, budget, caveats

STATIC = [0.60, 0.61, 0.62, 0.60, 0.61]


def study_of(fabricate, scores, host="timm", **more):
    study = collect([fabricate().task("task", host, scores, **more).root])
    task = study.tasks["task"]
    return study, task, compare(task)


def shifted(by, noise=(0.001, -0.002, 0.0, 0.002, -0.001)):
    return [s + by + n for s, n in zip(STATIC, noise, strict=True)]


def test_the_verdicts_in_words(fabricate) -> None:
    noisy = shifted(0.002, (0.03, -0.03, 0.02, -0.02, 0.0))
    scores = {"static": STATIC, "odconv": shifted(0.05), "hard": shifted(-0.05), "localsoft": noisy}
    _, task, rows = study_of(fabricate, scores)
    verdicts = {r.model.key: r.verdict for r in rows}
    better, worse, unclear = Verdict.BETTER, Verdict.WORSE, Verdict.OPEN
    assert verdicts == {"static": Verdict.REFERENCE, "odconv": better, "hard": worse, "localsoft": unclear}
    said = {r.model.key: r.sentence for r in rows}
    assert said["odconv"].startswith("ODConv beats its static twin by +5.0 points (95% CI +4.")
    assert "does not beat its static twin, it is worse" in said["hard"]
    assert said["localsoft"].endswith("not significant, p = 0.87.") and "does not beat" in said["localsoft"]
    shown = answer(task, rows)
    assert shown.word == "Yes" and shown.best.model.key == "odconv" and "1 of 3 dynamic models" in shown.text
    text = tables.results(task, rows).markdown()
    assert "beats static" in text and "worse than static" in text and "not significant" in text


def test_many_models_make_a_verdict_harder(fabricate) -> None:
    """One p of 0.03 among many is what chance gives: Holm's correction takes the verdict back, and the text says so."""
    one = shifted(0.02, (0.02, -0.01, 0.0, 0.015, -0.005))
    _, _, alone = study_of(fabricate, {"static": STATIC, "odconv": one})
    assert alone[1].verdict is Verdict.BETTER and alone[1].p == pytest.approx(alone[1].pair.p)
    others = {k: shifted(0.001, (0.03, -0.03, 0.02, -0.02, 0.0)) for k in ("hard", "localsoft", "globalsoft")}
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": one, **others})
    assert rows[1].verdict is Verdict.OPEN and rows[1].p == pytest.approx(4 * rows[1].pair.p)
    assert "alone" in rows[1].sentence and answer(task, rows).word == "Not shown"


@pytest.mark.parametrize("runs", [1, 2])
def test_too_few_runs(fabricate, runs: int) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC[:runs], "odconv": shifted(0.1)[:runs]})
    assert rows[1].verdict is Verdict.FEW and "too few runs to test" in rows[1].sentence
    assert answer(task, rows).word == "Too early to say"
    assert (rows[0].binomial is not None) == (runs == 1)


def test_one_run_is_compared_by_mcnemar(fabricate) -> None:
    made = fabricate().task("task", "timm", {"static": [0.5], "odconv": [0.6]})
    truth = np.arange(1000) % 20
    for key, right in (("static", 500), ("odconv", 600)):
        folder = made.root / "task" / key / "seed0"
        np.savez(folder / "predictions.npz", truth=truth, predicted=np.where(np.arange(1000) < right, truth, truth + 1))
        text = (folder / "metrics.json").read_text().replace('"predictions": null', '"predictions": "predictions.npz"')
        (folder / "metrics.json").write_text(text)
    task = collect([made.root]).tasks["task"]
    rows = compare(task)
    assert (rows[1].exact.only_ours, rows[1].exact.only_theirs) == (100, 0) and rows[1].exact.p < 1e-20
    assert rows[1].verdict is Verdict.FEW, "a test of two networks is none of what another seed would give"
    assert "at least three runs" in answer(task, rows).text
    tested = tables.tests(task, rows)
    assert "100 : 0" in tested.markdown() and "another seed" in tested.about and "verdict rests" not in tested.about
    path = made.root / "task/odconv/seed0/predictions.npz"
    whole = path.read_bytes()
    for damaged in (b"PK", whole[: len(whole) // 2], whole[:100] + bytes(200) + whole[300:]):
        path.write_bytes(damaged)
        assert compare(collect([made.root]).tasks["task"])[1].exact is None


def test_answers_no_and_in_part(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": shifted(-0.05)})
    assert answer(task, rows).word == "No"
    # The dynamic twin of the weak network pays, but the strong static network is ahead of all.
    scores = {"FCN-static": STATIC, "FCN-odconv": shifted(0.05), "ResNet-static": [s + 0.2 for s in STATIC]}
    _, task, rows = study_of(fabricate, scores, networks=("FCN", "ResNet"))
    found = answer(task, rows)
    assert found.word == "In part" and "ResNet static" in found.text


def test_the_budget_is_the_frontier(fabricate) -> None:
    scores = {"static": STATIC, "odconv": shifted(-0.05), "localsoft": shifted(0.01), "orconv": shifted(0.05)}
    _, task, rows = study_of(fabricate, scores)
    table = budget(task, rows)
    assert [row[1].text for row in table.rows] == ["static", "local soft", "ORConv"]
    assert [row[0].raw for row in table.rows] == sorted(row[0].raw for row in table.rows)
    assert budget(*study_of(fabricate, {"static": STATIC, "odconv": shifted(-0.05)})[1:]) is None


def test_csv_keeps_every_digit(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": shifted(0.0123456)})
    read = list(csv.DictReader(io.StringIO(tables.results(task, rows).csv())))
    assert [r["Model"] for r in read] == ["static", "ODConv"]
    scores = rows[1].scores
    names = ("accuracy (%)", "accuracy (%): low", "accuracy (%): high")
    assert [float(read[1][name]) / 100 for name in names] == pytest.approx([scores.mean, scores.low, scores.high])
    assert float(read[1]["MAdds (G)"]) * 1e9 == pytest.approx(rows[1].model.costs.macs)
    assert float(read[1]["against static (points)"]) == pytest.approx(1.23456)
    assert float(read[1]["against static (points): low"]) == pytest.approx(100 * rows[1].pair.summary.low)


def test_per_class_and_missing_classes(fabricate) -> None:
    names = ("background", "a|very long name of a class that somebody thought of", "cat")
    _, task, rows = study_of(fabricate, {"static": [0.3], "odconv": [0.4]}, host="mmseg", per_class=names)
    table = tables.classes(task, rows)
    assert [row[0].text for row in table.rows] == [*names, "mIoU"]
    assert table.rows[0][2].tone == "best" and "a\\|very" in table.markdown()
    assert "**40.0**" in table.markdown() or "**52.0**" in table.markdown(), (
        "the highest in bold, as the words below say"
    )
    assert tables.results(task, rows).title == "mIoU (Table 4 of the paper)"


def test_the_papers_numbers_beside_ours(fabricate) -> None:
    keys = ("static", "globalsoft", "localsoft", "hard", "odconv")
    _, task, rows = study_of(fabricate, dict.fromkeys(keys, STATIC))
    found = {r.model.key: published.published(task, r.model) for r in rows}
    assert [found[k].score for k in keys] == [0.652, 0.701, 0.715, 0.687, 0.734]
    assert [found[k].gflops for k in keys] == [1.5, 1.8, 2.0, 2.1, 2.3]
    note = published.not_comparable(task)
    assert (
        "20 of 200 classes" in note and "9,000 of 100,000 training samples" in note and "64 px instead of 224" in note
    )
    text = costs(task, rows).markdown()
    assert "11.94" in text and "1.838" in text
    assert "60.5" in references(task).markdown()
    _, task, rows = study_of(fabricate, {"static": [0.3], "odconv": [0.4]}, host="mmseg")
    assert [published.published(task, r.model).score for r in rows] == [0.675, 0.7309]
    assert "Faster R-CNN" in published.not_comparable(task)


def test_folds_of_the_papers_networks(fabricate) -> None:
    own = published.folds()
    scores = {"static": own["CNN"]["accuracy"], "odconv": own["D-CNN"]["accuracy"]}
    losses = {"static": own["CNN"]["loss"], "odconv": own["D-CNN"]["loss"]}
    study, task, rows = study_of(fabricate, scores, host="tsai", networks=("Net1",), folds=True, losses=losses)
    assert task.folded and rows[1].verdict is Verdict.BETTER and rows[1].p == pytest.approx(6.215e-3, rel=1e-3)
    table = runs(task)
    assert [row[0].text for row in table.rows[2:]] == ["the paper's CNN", "the paper's D-CNN"]
    results = tables.results(task, rows)
    less = [row[[h.text for h in results.heads].index("ours less the paper's")].text for row in results.rows]
    assert less == ["+0.0", "+0.0"] and "says neither" in published.left_open(task)
    assert len(table.heads) == 13 and table.rows[0][1].text == "50.6" and table.rows[0][1].note == "1.461"
    assert [table.rows[0][11].text, table.rows[1][11].text] == ["57.1", "65.3"]
    assert published.published(task, rows[0].model).score == 0.571
    assert published.published(task, rows[1].model).score == 0.653 and published.not_comparable(task) == ""
    assert "corrected" in tables.tests(task, rows).heads[3].text
    assert "78 test samples in each fold" in " ".join(caveats(study, {"task": rows})["task"])


def test_other_series_are_not_the_papers(fabricate) -> None:
    data = {"name": "Beef", "train": 30, "test": 30, "classes": 5}
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": STATIC}, host="tsai", data=data)
    assert published.entry_of(task) is None and references(task) is None and published.source(task) == ""
    data = {"name": "Adiac", "train": 390, "test": 391, "classes": 37}
    _, task, _ = study_of(fabricate, {"static": STATIC}, host="tsai", data=data, networks=("FCN",))
    assert "official split instead of 10 folds" in published.not_comparable(task)
    assert "84.1" in references(task).markdown() and published.source(task) == ""
    assert tables.results(task, compare(task)).title == "Accuracy", "the paper has no table of the official split"
    data = {"name": "Adiac, training series only", "train": 292, "test": 98, "classes": 37, "tuning": True}
    _, task, _ = study_of(fabricate, {"static": STATIC}, host="tsai", data=data, networks=("FCN",))
    assert published.entry_of(task) is None and references(task) is None, "recipes are compared with each other"
    _, task, _ = study_of(fabricate, {"static": STATIC}, recipe="tiny_imagenet_64", options={"epochs": 10})
    assert "recipe tiny_imagenet_64 instead of the paper's; 10 of its 30 epochs" in published.not_comparable(task)


def test_equal_scores_are_not_significant(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": STATIC})
    assert rows[1].verdict is Verdict.OPEN and rows[1].p == 1.0
    assert rows[1].gap == "+0.0 points" and "+0.0 to" not in tables.results(task, rows).markdown(), (
        "no width is no news"
    )
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": [s + 0.01 for s in STATIC]})
    assert rows[1].verdict is Verdict.NO_SPREAD and "no spread" in tables.results(task, rows).markdown()


def test_without_a_static_twin_or_costs(fabricate) -> None:
    study, task, rows = study_of(fabricate, {"odconv": STATIC, "hard": STATIC}, costs=False)
    assert {r.verdict for r in rows} == {Verdict.NO_TWIN}
    assert "no static twin of resnet18" in " ".join(caveats(study, {"task": rows})["task"])
    assert answer(task, rows).word == "Too early to say" and budget(task, rows) is None
    assert [h.text for h in costs(task, rows).heads][:2] == ["Model", "memory of the training process"]


def test_the_answer_is_about_the_one_that_is_furthest_ahead(fabricate) -> None:
    """Not about the network that is best anyway."""
    noise = (0.03, -0.03, 0.02, -0.02, 0.0)
    scores = {"Net1-static": STATIC, "Net1-odconv": shifted(0.01, noise)}
    scores |= {"Net2-static": [s + 0.1 for s in STATIC], "Net2-odconv": shifted(0.09, noise)}
    _, task, rows = study_of(fabricate, scores, host="tsai", networks=("Net1", "Net2"))
    said = answer(task, rows)
    assert said.word == "Not shown" and said.best.name == "Net1 ODConv" and "+1.0 points" in said.text
    assert "highest mean of all is Net2 static's: 70.8%" in said.text


def test_one_untested_model_is_not_every_model(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": shifted(-0.05), "hard": [0.7]})
    assert answer(task, rows).word == "Not shown"


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


def test_networks_that_have_learned_next_to_nothing_are_called_that(fabricate) -> None:
    made = fabricate().task("task", "mmseg", {"static": [0.045], "odconv": [0.049]}, per_class=("background", "cat"))

    def said(constant: float) -> str:
        for path in made.root.glob("task/*/*/metrics.json"):
            metrics = json.loads(path.read_text()) | {"constant_score": constant, "pixel_accuracy": 0.66}
            path.write_text(json.dumps(metrics))
        study = collect([made.root])
        rows = compare(study.tasks["task"])
        shown = tables.results(study.tasks["task"], rows)
        assert "pixel accuracy (%)" in shown.markdown() and f"would score {constant:.1%}" in shown.about
        return " ".join(caveats(study, {"task": rows})["task"])

    assert "hardly learned the task" in said(0.037) and "3.7%" in said(0.037)
    assert "hardly" not in said(0.01)


def test_a_class_that_is_nowhere_has_a_row_and_no_part_in_the_mean(fabricate) -> None:
    made = fabricate().task("task", "mmseg", {"static": [0.3]}, per_class=("background", "cat", "boat"))
    (path,) = made.root.glob("task/*/*/metrics.json")
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"per_class": metrics["per_class"] | {"boat": None}}))
    task = collect([made.root]).tasks["task"]
    table = tables.classes(task, compare(task))
    assert [row[0].text for row in table.rows] == ["background", "cat", "boat", "mIoU"]
    assert table.rows[2][1].text == "–" and "mean over 2 of the 3 classes" in table.about


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


def test_what_is_changed_has_no_published_counts(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": STATIC}, arguments={"num_kernels": 8})
    assert published.counts(rows[1].model) is None


def test_looks_differ_without_colour() -> None:
    labels = ["static", *(f"model {i}" for i in range(11))]
    made = looks(labels)
    assert len({look.marker for look in made.values()}) == len(labels)
    assert made["static"] == looks(["odconv", "static"])["static"], "the twin looks the same everywhere"


def test_a_command_names_no_folder_of_the_machine_it_ran_on(tmp_path):
    root = tmp_path / "runs" / "mine"
    words = ["/opt/env/bin/python3", "-m", "tsai_models", "train", "--data", "/big/disk/UCR"]
    words += ["--out", f"{root}/a/static/seed0/run"]
    record = {"command": words, "data": {"path": "/big/disk/UCR"}}
    cell = Cell(root / "a" / "static" / "seed0", "a", "static", "seed0", "done", "", record)
    assert command(cell) == "python -m tsai_models train --data $DYNCONV_DATA/UCR --out mine/a/static/seed0/run"
