"""What the tables and the answers say."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from made import STATIC, study_of

from dynconv_plugins.report import tables
from dynconv_plugins.report.caveats import caveats
from dynconv_plugins.report.class_table import classes
from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.commands import commands
from dynconv_plugins.report.compare import compare
from dynconv_plugins.report.cost_table import costs
from dynconv_plugins.report.looks import looks
from dynconv_plugins.report.places import placeless_record
from dynconv_plugins.report.records import Cell, Model, Task
from dynconv_plugins.report.statistics import holm, summarise
from dynconv_plugins.report.summary import answer, budget
from dynconv_plugins.report.verdicts import Verdict


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
    # One p among several is corrected, as the other tests' are.
    third = made.root / "task" / "hard"
    shutil.copytree(made.root / "task" / "odconv", third)
    record = json.loads((third / "seed0/cell.json").read_text()) | {"operator": "hard", "label": "hard"}
    (third / "seed0/cell.json").write_text(json.dumps(record))
    rightly = np.where(np.arange(1000) < 515, truth, truth + 1)
    np.savez(third / "seed0" / "predictions.npz", truth=truth, predicted=np.where(np.arange(1000) < 5, -1, rightly))
    task = collect([made.root]).tasks["task"]
    several = compare(task)
    table = tables.tests(task, several)
    place = [h.text for h in table.heads].index("McNemar with Holm")
    alone = [r.exact.p for r in several if r.exact]
    assert [row[place].raw for row in table.rows] == holm(alone) and holm(alone) != alone
    shutil.rmtree(third)
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


def test_significant_losses_are_not_hidden_by_the_best(fabricate) -> None:
    """Neither where nothing is shown nor where one model pays."""
    noise = (0.03, -0.03, 0.02, -0.02, 0.0)
    scores = {"static": STATIC, "odconv": shifted(0.01, noise), "hard": shifted(-0.05), "dyconv": shifted(-0.1)}
    _, task, rows = study_of(fabricate, scores)
    found = answer(task, rows)
    assert found.word == "Not shown"
    assert "2 of 3 are significantly worse: DyConv (−10.0 points, p < 0.001) and hard (−5.0 points, p" in found.text
    _, task, rows = study_of(fabricate, scores | {"dyconv": shifted(0.1)})
    assert "1 of 3 is significantly worse: hard (−5.0 points" in answer(task, rows).text


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
    table = classes(task, rows)
    assert [row[0].text for row in table.rows] == [*names, "mIoU"]
    assert table.rows[0][2].tone == "best" and "a\\|very" in table.markdown()
    assert "**40.0**" in table.markdown() or "**52.0**" in table.markdown(), (
        "the highest in bold, as the words below say"
    )
    assert tables.results(task, rows).title == "mIoU (Table 4 of the paper)"


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
    assert answer(task, rows).word == "Cannot be said" and budget(task, rows) is None
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

    assert "The networks have hardly learned the task" in said(0.037) and "3.7%" in said(0.037)
    assert "hardly" not in said(0.01)
    # One that predicts little but the background beside one that has learned is named.
    assert "One network has hardly learned the task" in said(0.031) and "3.1%): static (4.5%). Its" in said(0.031)


def test_a_class_that_is_nowhere_is_named_and_has_no_row(fabricate) -> None:
    made = fabricate().task("task", "mmseg", {"static": [0.3]}, per_class=("background", "cat", "boat"))
    (path,) = made.root.glob("task/*/*/metrics.json")
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"per_class": metrics["per_class"] | {"boat": None}}))
    task = collect([made.root]).tasks["task"]
    table = classes(task, compare(task))
    assert [row[0].text for row in table.rows] == ["background", "cat", "mIoU"]
    assert "mean over 2 of the 3 classes" in table.about and table.about.endswith("has no IoU (here boat).")


def test_looks_differ_without_colour() -> None:
    labels = ["static", *(f"model {i}" for i in range(11))]
    made = looks(labels)
    assert len({made[label].marker for label in labels}) == len(labels)
    assert made["static"] == looks(["odconv", "static"])["static"], "the twin looks the same everywhere"


def test_a_command_names_no_folder_of_the_machine_it_ran_on(tmp_path):
    root = tmp_path / "runs" / "mine"
    words = ["/opt/env/bin/python3", "-m", "tsai_models", "train", "--data", "/big/disk/UCR"]
    words += ["--out", f"{root}/a/static/seed0/run"]
    record = placeless_record({"command": words, "data": {"path": "/big/disk/UCR"}}, root, "a/static/seed0")
    cell = Cell(root / "a" / "static" / "seed0", "a", "static", "seed0", "done", "", record)
    task = Task("a", {"static": Model("static", "FCN", "static", "static", {"seed0": cell})})
    [(_, said)] = commands(task)
    assert said == "python -m tsai_models train --data $DYNCONV_DATA/UCR --out mine/a/static/seed0/run"


def test_pixel_accuracy_over_runs_has_an_interval(fabricate) -> None:
    made = fabricate().task("task", "mmseg", {"static": [0.3] * 3, "odconv": [0.4]}, per_class=("background", "cat"))
    right = [0.66, 0.7, 0.98]
    for path in made.root.glob("task/*/*/metrics.json"):
        metrics = json.loads(path.read_text())
        path.write_text(json.dumps(metrics | {"pixel_accuracy": right[int(path.parent.name[-1])]}))
    task = collect([made.root]).tasks["task"]
    table = tables.results(task, compare(task))
    place = [h.text for h in table.heads].index("pixel accuracy")
    several, one = (row[place] for row in table.rows)
    expected = summarise(right)
    assert several.raw == pytest.approx(78.0) and several.span == pytest.approx((100 * expected.low, 100))
    assert one.text == "66.0" and one.span is None
