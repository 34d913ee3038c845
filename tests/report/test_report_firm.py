"""Five runs make a firm result: fewer hint at one, whatever their p, and some could not have shown anything."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("rich")
pytest.importorskip("yaml")

from made import study_of

from dynconv_plugins import cli
from dynconv_plugins.report import tables
from dynconv_plugins.report.between import between
from dynconv_plugins.report.caveats import caveats
from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.compare import compare
from dynconv_plugins.report.overview import overview
from dynconv_plugins.report.statistics import mcnemar, resolution, wilson
from dynconv_plugins.report.summary import answer, budget
from dynconv_plugins.report.verdicts import Verdict

STATIC = (0.600, 0.602, 0.598, 0.601, 0.599)
NOISE = (0.002, -0.001, 0.0, 0.001, -0.002)


def off(by: float, runs: int = 5, scale: float = 1.0) -> list[float]:
    return [s + by + scale * n for s, n in zip(STATIC, NOISE, strict=True)][:runs]


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize(("runs", "firm"), [(3, False), (4, False), (5, True)])
def test_five_runs_make_a_firm_result(fabricate, runs: int, firm: bool, folds: bool) -> None:
    scores = {"static": STATIC[:runs], "odconv": off(0.05, runs), "hard": off(-0.05, runs, 2)}
    _, task, rows = study_of(fabricate, scores, host="tsai" if folds else "timm", folds=folds)
    rows.sort(key=lambda r: -r.scores.mean if r.twin else -1)
    assert all(r.p < 0.05 for r in rows[1:]), "or there is nothing to hint at"
    better, worse = (Verdict.BETTER, Verdict.WORSE) if firm else (Verdict.AHEAD, Verdict.BEHIND)
    assert [r.verdict for r in rows[1:]] == [better, worse]
    said = answer(task, rows)
    assert (said.word, said.tone) == (("Yes", "good") if firm else ("Hinted, not shown", "quiet"))
    assert said.best.model.key == "odconv"
    shown = [tables.results(task, rows), tables.tests(task, rows), overview([said]), budget(task, rows)]
    tones = {field.tone for table in shown for row in table.rows for field in row}
    assert ({"good", "bad"} & tones != set()) == firm
    (table,) = between(task)
    corner = next(field for field in table.rows[0][1:] if field.raw)
    assert (corner.tone == "best") == firm and corner.note.startswith("p "), "p is told all the same"
    assert "Bold where p is below 0.05 in five common runs or more" in table.about
    words = ("beats", "significantly") if firm else ("ahead of its static twin", "too few")
    for text in (said.text, rows[1].sentence):
        assert words[0] in text
    assert words[1] in said.text and ("significantly" in said.text) == firm
    place = [h.text for h in shown[0].heads].index("verdict")
    assert shown[0].rows[1][place].note.startswith("p ")
    lines = list(csv.DictReader(io.StringIO(shown[0].csv())))
    assert lines[1]["verdict"] == ("beats static" if firm else "ahead, in too few runs to be firm")
    kind = "folds" if folds else "seeds"
    assert (f"No verdict is firm below five {kind}" in shown[0].about) != firm


def test_a_hint_says_of_how_many_runs_it_is(fabricate, capsys) -> None:
    made = fabricate().task("task", "timm", {"static": STATIC[:3], "hard": off(-0.05, 3), "odconv": off(0.0, 3, 5)})
    task = collect([made.root]).tasks["task"]
    rows = {r.model.key: r for r in compare(task)}
    said = answer(task, list(rows.values()))
    assert said.word == "Not shown" and said.best.model.key == "odconv"
    assert rows["hard"].sentence.startswith("hard is behind its static twin: −5.0 points (95% CI −5.")
    few = "in three runs, too few for a firm result (five make one)."
    assert rows["hard"].sentence.endswith(few)
    assert "Behind, but in too few runs for a firm result (five make one): hard (−5.0 points, p " in said.text
    assert cli.run(["report", str(made.root), "--no-pictures"]) == 0
    page, text = ((made.root / "report" / name).read_text() for name in ("index.html", "report.md"))
    for words in (capsys.readouterr().out, page, text):
        assert "significantly worse" not in words and "five make one" in " ".join(words.split())
    assert 'class="words bad"' not in page and "behind, in too few runs to be firm" in page


def test_what_only_the_correction_takes_back_is_told_both_ways(fabricate) -> None:
    rough = off(-0.002, scale=0.9)
    others = {key: off(0.0001, scale=n) for n, key in enumerate(("odconv", "condconv", "dcd", "dyconv"), 1)}
    scores = {"static": STATIC, "hard": rough, **others}
    _, task, rows = study_of(fabricate, scores)
    told = {r.model.key: r for r in rows}
    assert told["hard"].pair.p < 0.05 <= told["hard"].p
    said = answer(task, rows)
    alone = f"hard (−0.2 points, p = {told['hard'].pair.p:.3f})"
    assert said.word == "Not shown" and f"not after correction for {told['hard'].tests} models: {alone}." in said.text
    assert "not after correction" not in answer(*study_of(fabricate, {"static": STATIC, "hard": rough})[1:]).text


def test_single_pairs_of_networks_are_told_beside_a_hint(fabricate) -> None:
    """McNemar's test of one run's networks may see nothing where three runs agree by chance."""
    made = fabricate().task("task", "timm", {"static": [0.5] * 3, "hard": [0.5] * 3})
    truth = np.arange(100) % 20
    alone = []
    for seed, (ours, theirs) in enumerate([(40, 45), (41, 46), (40, 46)]):
        guessed = [np.where(np.arange(100) < n, truth, -1) for n in (ours, theirs)]
        alone.append(mcnemar(truth, *guessed).p)
        for key, predicted, n in (("hard", guessed[0], ours), ("static", guessed[1], theirs)):
            folder = made.root / "task" / key / f"seed{seed}"
            np.savez(folder / "predictions.npz", truth=truth, predicted=predicted)
            metrics = json.loads((folder / "metrics.json").read_text())
            metrics |= {"score": n / 100, "predictions": "predictions.npz"}
            (folder / "metrics.json").write_text(json.dumps(metrics))
    task = collect([made.root]).tasks["task"]
    row = compare(task)[1]
    assert row.verdict is Verdict.BEHIND and row.exact is None
    span = f"p = {min(alone):.3f} to {max(alone):.3f}"
    assert f"; McNemar's test of each pair of networks, uncorrected: {span}." in row.sentence
    (made.root / "task/static/seed1/predictions.npz").unlink()
    assert "McNemar" not in compare(collect([made.root]).tasks["task"])[1].sentence, "of all runs or of none"


@pytest.mark.parametrize(("common", "have"), [(0, "none"), (1, "one"), (2, "two")])
def test_runs_in_common_are_what_a_test_needs(fabricate, common: int, have: str) -> None:
    made = fabricate().task("task", "timm", {"static": [0.6] * 6, "odconv": [0.7] * 6})
    for seed in range(6):
        if seed >= 3 + (common + 1) // 2:
            (made.root / f"task/static/seed{seed}/metrics.json").unlink()
        elif seed < 3 - common // 2:
            (made.root / f"task/odconv/seed{seed}/metrics.json").unlink()
    task = collect([made.root]).tasks["task"]
    rows = compare(task)
    assert all(len(r.model.results) >= 3 for r in rows) and rows[1].pair.summary.n == common
    assert rows[1].verdict is Verdict.APART
    text = answer(task, rows).text
    assert "too few runs in common to test" in text and "runs of each model" not in text
    assert f"at least three runs in common: these have {have}." in text


def test_gains_beyond_the_perfect_score_are_none(fabricate) -> None:
    """At 99% a gain of three points cannot be had, so that nothing could have been shown."""
    high = [s + 0.39 for s in STATIC]
    wide = [s - 0.003 + 10 * n for s, n in zip(high, NOISE, strict=True)]
    _, task, rows = study_of(fabricate, {"static": high, "odconv": wide})
    assert resolution(rows[1].pair.summary, 1) > 0.01
    none = "In these runs no gain that is possible above the static twin could have been significant."
    assert none in answer(task, rows).text and "a mean gain below" not in answer(task, rows).text
    steady = [s - 0.0005 + 0.5 * n for s, n in zip(high, NOISE, strict=True)]
    _, task, rows = study_of(fabricate, {"static": high, "odconv": wide, "dyconv": steady})
    text = answer(task, rows).text
    least = f"{100 * resolution(rows[2].pair.summary, 2):.1f}"
    assert f"below about {least} points would not have been significant, nor any that is possible for ODConv." in text


@pytest.mark.parametrize(
    ("at", "drops"), [(0.39, (0.4, 0, 0, 0, 0)), (0.0, (0.12, 0.1, 0, 0.1, 0.02))], ids=["no-gain-so-large", "alone"]
)
def test_models_that_are_far_behind_are_asked_for_no_gain(fabricate, at: float, drops: tuple[float, ...]) -> None:
    static = [s + at for s in STATIC]
    steady = [s - 0.0005 + 0.5 * n for s, n in zip(static, NOISE, strict=True)]
    lost = [s - drop for s, drop in zip(static, drops, strict=True)]
    _, task, rows = study_of(fabricate, {"static": static, "dyconv": steady, "hard": lost})
    assert rows[2].verdict is Verdict.OPEN and (rows[2].pair.p < 0.05) == (at == 0)
    least = f"{100 * resolution(rows[1].pair.summary, 2):.1f}"
    assert f"a mean gain below about {least} points would not have been significant." in answer(task, rows).text


@pytest.mark.parametrize("right", [1.0, 0.5])
def test_a_perfect_score_has_an_interval(fabricate, right: float) -> None:
    study, task, rows = study_of(fabricate, {"static": [right] * 3})
    (line,) = [line for line in caveats(study, {"task": rows})["task"] if "samples:" in line]
    low, high = wilson(right, 1000)
    assert line.endswith(f"{right:.1%} has a 95% interval of {low:.1%} to {high:.1%} from the test set alone.")
    assert low < right
