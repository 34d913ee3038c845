"""Drawings: who looks how, axes that one series cannot ruin, bands and bars that are those of the tables."""

from __future__ import annotations

import itertools
import json
import math
import re

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

from made import study_of

from dynconv_plugins import registry
from dynconv_plugins.report import axes as shared
from dynconv_plugins.report import cost_plot, figures, published
from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.compare import compare
from dynconv_plugins.report.looks import SHAPES, looks
from dynconv_plugins.report.names import label_of
from dynconv_plugins.report.records import STATIC
from dynconv_plugins.report.run_table import runs
from dynconv_plugins.report.studio import ON_PAPER, Studio, plt

SEEDS = [0.60, 0.61, 0.62]


@pytest.fixture
def studio(tmp_path) -> Studio:
    return Studio(tmp_path / "img")


def drawn(make, task, *rows, studio: Studio) -> dict[str, str]:
    """The drawings' SVG by name."""
    labels = [m.label for m in task.ordered()]
    return {p.name: p.svg for p in make(task, *rows, looks(labels), studio)}


def test_every_operator_has_a_look_of_its_own_in_every_report() -> None:
    known = [STATIC, *(label_of(name) for name in registry.names())]
    assert len(known) >= 13
    ours = looks(known)
    for what in ("colour", "marker"):
        seen = [getattr(ours[label], what) for label in known]
        assert len(set(seen)) == len(known), what
    # Where colours are closest, as to the colour-blind, lines differ by their dashes.
    rgb = {label: np.array([int(ours[label].colour[i : i + 2], 16) for i in (1, 3, 5)]) for label in known}
    for a, b in itertools.combinations(known, 2):
        assert np.abs(rgb[a] - rgb[b]).sum() > 90 or ours[a].dash != ours[b].dash, (a, b)
    backwards = looks(["a plan's own", *reversed(known)])
    assert all(backwards[label] == ours[label] for label in known), "whatever else the report compares"


def test_labels_of_a_plans_own_look_like_no_other() -> None:
    found = looks([f"K = {i}" for i in range(40)])
    assert len({(look.colour, look.dash) for look in found.values()}) == len(found) == 41 + len(registry.names())
    assert all(look.marker in SHAPES and look.svg for look in found.values())


@pytest.mark.parametrize(("highest", "logarithmic"), [(2200.0, True), (9.0, False)])
def test_one_line_does_not_make_the_others_flat(highest: float, logarithmic: bool) -> None:
    figure, axes = plt.subplots()
    steps = np.arange(50)
    for i in range(3):
        axes.plot(steps, 0.5 + 3 * np.exp(-steps / 10) + 0.1 * i, label=f"calm {i}")
    axes.plot(steps, np.where(steps == 30, highest, 2.0), label="wild")
    axes.axhline(0.0)  # a line without a name is not asked
    assert shared.upright(axes) is logarithmic
    low, high = (axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1] for y in (0.55, 3.5))
    assert high - low > 0.15, "of the height; without the logarithm a thousandth"
    plt.close(figure)


def test_losses_at_zero_and_single_lines_stay_linear() -> None:
    assert not shared.apart([]) and not shared.apart([np.array([0.001, 900.0])])
    assert not shared.apart([np.array([0.0, 1.0]), np.array([1.0, 900.0])]), "nothing has no logarithm"
    assert shared.apart([np.array([0.1, 1.0]), np.array([1.0, 900.0])])


def test_a_loss_that_explodes_is_told_in_the_title(fabricate, studio: Studio) -> None:
    scores = {"static": SEEDS, "odconv": SEEDS, "hard": SEEDS}
    losses = {"static": [1.0] * 3, "odconv": [0.9, 1.0, 1.1], "hard": [1.2, 2200.0, 1.3]}
    _, task, _ = study_of(fabricate, scores, losses=losses)
    by_seed = drawn(figures.folds, task, studio=studio)
    assert "Test loss by seed, logarithmic" in by_seed["task-resnet18-seeds-loss"]
    assert "logarithmic" not in by_seed["task-resnet18-seeds-score"]
    _, task, _ = study_of(fabricate, scores, losses=losses | {"hard": [1.2, 2.2, 1.3]})
    assert "logarithmic" not in drawn(figures.folds, task, studio=studio)["task-resnet18-seeds-loss"]


def test_the_papers_own_losses_are_called_what_it_calls_them(fabricate, studio: Studio) -> None:
    """Its Table 4a says no more than that."""
    own = published.folds()["CNN"]["accuracy"]
    _, task, _ = study_of(fabricate, {"static": own}, host="tsai", networks=("Net1",), folds=True)
    svg = drawn(figures.folds, task, studio=studio)["task-paper-folds-loss"]
    assert "own: loss by fold" in svg and "test loss" not in svg
    assert runs(task).about == (
        "Accuracy in %, with the test loss. Of its own the paper says “loss” alone, not of which samples."
    )


def test_a_single_run_has_no_line_at_its_mean(fabricate, studio: Studio) -> None:
    _, task, _ = study_of(fabricate, {"static": SEEDS, "odconv": [0.6], "hard": [0.5, 0.6]})
    svg = drawn(figures.folds, task, studio=studio)["task-resnet18-seeds-score"]
    assert len(re.findall(r"stroke-width: 1\.3\b", svg)) == 2, "static and hard"


@pytest.mark.parametrize("folds", [True, False])
def test_bands_are_the_intervals_of_the_table(fabricate, studio: Studio, monkeypatch, folds: bool) -> None:
    """Training sets of folds overlap, which widens both alike."""
    made = fabricate().task("task", "tsai", {"static": [0.5, 0.6, 0.55, 0.7]}, networks=("Net1",), folds=folds)
    for path in made.root.glob("*/*/*/metrics.json"):
        read = json.loads(path.read_text())
        read["curve"]["valid_score"] = [read["score"]] * len(read["curve"]["steps"])
        path.write_text(json.dumps(read))
    task = collect([made.root]).tasks["task"]
    bands = []
    monkeypatch.setattr(plt.Axes, "fill_between", lambda _axes, steps, low, high, **_: bands.append((low, high)))
    figures.curves(task, looks(["static"]), studio)
    (row,) = compare(task)
    low, high = bands[-1]
    np.testing.assert_allclose(low, row.scores.low * 100)
    np.testing.assert_allclose(high, row.scores.high * 100)


def bands_of(made, studio: Studio, monkeypatch, **curve) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the band that runs with these curves have, one row a run."""
    (what, rows) = next(iter(curve.items()))
    for path, values in zip(sorted(made.root.glob("*/*/*/metrics.json")), rows, strict=True):
        read = json.loads(path.read_text())
        none = [None] * len(values)
        read["curve"] = {"unit": "epoch", "steps": list(range(1, len(values) + 1)), "train_loss": none}
        read["curve"] |= {"valid_loss": none, "valid_score": none, what: values}
        path.write_text(json.dumps(read))
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(plt.Axes, "fill_between", lambda _axes, steps, low, high, **_: found.append((low, high)))
        figures.curves(collect([made.root]).tasks["task"], looks(["static"]), studio)
    return found[0] if found else None


def test_steps_that_few_runs_reach_have_no_band(fabricate, studio: Studio, monkeypatch) -> None:
    """Student's t with one degree of freedom is 12.7, and a band of it hides the picture."""
    made = fabricate().task("task", "timm", {"static": [0.5] * 3})
    scores = [[0.3, 0.4, 0.5, 0.6], [0.31, 0.42, 0.4, 0.7], [0.33, 0.41, None, None]]
    low, high = bands_of(made, studio, monkeypatch, valid_score=scores)
    np.testing.assert_array_equal(np.isfinite(low), [True, True, False, False])
    np.testing.assert_array_equal(np.isfinite(high), [True, True, False, False])
    two = [scores[0], scores[1], [0.33, None, None, None]]
    assert bands_of(made, studio, monkeypatch, valid_score=two) is None, "one step is no curve, two runs no band"


def test_bands_end_where_scores_and_losses_do(fabricate, studio: Studio, monkeypatch) -> None:
    made = fabricate().task("task", "timm", {"static": [0.5] * 3})
    low, high = bands_of(made, studio, monkeypatch, valid_score=[[0.01, 0.9], [0.02, 0.99], [0.2, 0.98]])
    assert low[0] == 0 and high[1] == 100 and 0 < high[0] < 100
    low, high = bands_of(made, studio, monkeypatch, valid_loss=[[0.1, 150.0], [1.2, 160.0], [0.2, 170.0]])
    assert low[0] == 0 and high[1] > 170, "a loss has no upper end"


def test_two_kinds_of_interval_are_two_kinds_of_bar(fabricate, studio: Studio) -> None:
    _, task, rows = study_of(fabricate, {"static": SEEDS, "odconv": [0.66]})
    assert rows[1].binomial and not rows[0].binomial
    svg = drawn(cost_plot.against_cost, task, rows, studio=studio)["task-cost-macs"]
    assert len(re.findall("stroke-dasharray", svg)) == 1
    assert "solid over seeds" in (told := cost_plot.caption(task, rows)) and "dashed of the test set" in told
    _, task, rows = study_of(fabricate, {"static": SEEDS, "odconv": SEEDS[::-1]})
    assert "stroke-dasharray" not in drawn(cost_plot.against_cost, task, rows, studio=studio)["task-cost-macs"]
    assert cost_plot.caption(task, rows) == "Bars are 95% intervals over seeds (Student's t)."
    _, task, rows = study_of(fabricate, {"static": [0.3], "odconv": [0.31]}, host="mmseg")
    assert math.isnan(rows[0].bounds[0]) and cost_plot.caption(task, rows) == "", "nothing to tell of"


def test_equal_markers_are_told_apart_by_their_network(fabricate, studio: Studio, monkeypatch) -> None:
    operators, networks = ("static", "odconv", "hard"), ("FCN", "ResNet")
    scores = {f"{n}-{o}": [0.5 + 0.1 * i + 0.01 * k] for i, n in enumerate(networks) for k, o in enumerate(operators)}
    _, task, rows = study_of(fabricate, scores, host="tsai", networks=networks)
    lines = []
    plot = plt.Axes.plot
    monkeypatch.setattr(plt.Axes, "plot", lambda self, *a, **k: lines.append((a, k)) or plot(self, *a, **k))
    svg = drawn(cost_plot.against_cost, task, rows, studio=studio)["task-cost-macs"]
    assert all(f">{name}</text>" in svg for name in networks)
    threads = [a[1] for a, k in lines if k.get("lw") == 0.6]
    assert len(threads) == 2 * 4, "two drawings, two networks, two models beside each static one"
    assert {tuple(np.round(t, 6)) for t in threads} == {(50, 51), (50, 52), (60, 61), (60, 62)}, "within a network"
    assert "static twin, which is named" in cost_plot.caption(task, rows)
    _, task, rows = study_of(fabricate, {"static": SEEDS, "odconv": SEEDS})
    assert "Thin lines" not in cost_plot.caption(task, rows), "one network needs none"


def test_the_png_has_none_of_the_stand_ins(fabricate, studio: Studio) -> None:
    """They are nearly black: the box behind a network's name would be a bar, and the name not to be read."""
    scores = {f"{n}-{o}": [0.5, 0.6] for n in ("FCN", "ResNet") for o in ("static", "odconv")}
    _, task, rows = study_of(fabricate, scores, host="tsai", networks=("FCN", "ResNet"))
    drawn(cost_plot.against_cost, task, rows, studio=studio)
    shown = plt.imread(studio.folder / "task-cost-macs.png")[..., :3] * 255
    for stand_in in ON_PAPER:
        colour = [int(stand_in[i : i + 2], 16) for i in (1, 3, 5)]
        assert not (np.abs(shown - colour).max(-1) < 1).any(), stand_in
