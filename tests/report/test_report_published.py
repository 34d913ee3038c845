"""Published numbers beside ours: whose they are, and why they may not be compared."""

from __future__ import annotations

import html
import json

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from made import STATIC, study_of

from dynconv_plugins.report import published, tables
from dynconv_plugins.report.build import build
from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.compare import compare
from dynconv_plugins.report.cost_table import costs, references
from dynconv_plugins.report.run_table import runs


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


def test_a_changed_model_is_not_the_papers(fabricate) -> None:
    """A2D2C's own tables stand below instead, where the task varies what they vary."""
    scores = {"static": STATIC, "a2d2cplus": STATIC}
    for change, name in (
        ({"arguments": {"num_kernels": 8}}, "A2D2C+, K = 8"),
        ({"where": "median"}, "A2D2C+, median"),
        ({"where": "block_first", "arguments": {"num_kernels": 8}}, "A2D2C+, 8 kernels"),
        ({"arguments": {"sampling": "none"}}, "A2D2C+, no points"),
    ):
        made = fabricate().task("task", "timm", scores)
        for cell in made.root.glob("task/a2d2cplus/*/cell.json"):
            cell.write_text(json.dumps(json.loads(cell.read_text()) | change))
        task = collect([made.root]).tasks["task"]
        assert published.published(task, task.models["a2d2cplus"]) is None
        assert name in references(task).markdown() and "A2D2C, Table" in references(task).markdown()
    made = fabricate().task("task", "timm", {"static": STATIC, "odconv": STATIC}, networks=("mobilenetv2_050",))
    task = collect([made.root]).tasks["task"]
    assert not any(published.published(task, m) for m in task.models.values()) and tables.kind(task) == ""
    assert "A2D2C" not in references(task).markdown()


def test_ours_less_the_papers_where_only_the_run_differs(fabricate) -> None:
    data = {"name": "Tiny ImageNet", "train": 99000, "test": 10000, "classes": 200, "options": {"pixels": 224}}
    _, task, rows = study_of(fabricate, {"static": [0.66, 0.67, 0.68], "odconv": [0.7, 0.71, 0.7]}, data=data)
    table = tables.results(task, rows)
    place = [h.title for h in table.heads].index("ours less the paper's (points)")
    assert [row[place].text for row in table.rows] == ["+1.8", "−3.1"] and published.not_comparable(task) == ""


def test_ours_less_the_papers_stands_beside_why_it_is_not_comparable(fabricate, tmp_path) -> None:
    scores = {"static": [0.3], "odconv": [0.4], "dyconv": [0.35]}
    made = fabricate().task("task", "mmseg", scores)
    task = collect([made.root]).tasks["task"]
    table = tables.results(task, compare(task))
    place = [h.title for h in table.heads].index("ours less the paper's (points, not comparable)")
    assert [row[place].text for row in table.rows] == ["−37.5", "−33.1", "–"], "it has no DyConv"
    assert "not comparable" in table.csv().splitlines()[0]
    build(collect([made.root]), tmp_path / "out", pictures=False)
    for name in ("index.html", "report.md"):
        text = html.unescape((tmp_path / "out" / name).read_text())
        after = text[text.index("points, not comparable") :]
        assert "Not comparable with the paper's numbers" in after and "Faster R-CNN" in after


def test_a_pretrained_backbone_and_another_size_are_not_the_papers(fabricate) -> None:
    options = {"backbone_checkpoint": "model_best.pth.tar"}
    data = {"name": "VOC 2012", "train": 11530, "test": 1449, "classes": 21, "options": {"pixels": 64}}
    _, task, _ = study_of(fabricate, {"static": [0.3]}, host="mmseg", data=data, options=options)
    said = published.not_comparable(task)
    assert "64 px where it does not tell its own; networks that start from a backbone trained before" in said
    _, task, _ = study_of(fabricate, {"static": [0.3]}, host="mmseg", data=data)
    assert "backbone" not in published.not_comparable(task)


def test_other_series_are_not_the_papers(fabricate) -> None:
    data = {"name": "Beef", "train": 30, "test": 30, "classes": 5}
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": STATIC}, host="tsai", data=data)
    assert published.entry_of(task) is None and references(task) is None and published.source(task) == ""
    _, task, _ = study_of(fabricate, {"static": STATIC}, host="tsai", data=data, folds=True)
    assert runs(task).title == "Every fold", "the paper's Table 4a is of Adiac"
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


def test_what_is_changed_has_no_published_counts(fabricate) -> None:
    _, task, rows = study_of(fabricate, {"static": STATIC, "odconv": STATIC}, arguments={"num_kernels": 8})
    assert published.counts(rows[1].model) is None


@pytest.mark.parametrize(
    ("change", "params", "gmadds"),
    [
        ({"where": "median"}, 10.58, 1.920),
        ({"where": "block_first", "arguments": {"num_kernels": 8}}, 44.78, 1.920),
        ({"arguments": {"num_kernels": 8}}, 88.87, None),
        ({"arguments": {"sampling": "none"}}, 43.21, 1.880),
    ],
)
def test_ablations_have_published_counts(fabricate, change: dict, params: float, gmadds: float | None) -> None:
    """As A2D2C's Tables 8, 11, 12 and 13 print them."""
    made = fabricate().task("task", "timm", {"static": STATIC, "a2d2cplus": STATIC})
    for cell in made.root.glob("task/a2d2cplus/*/cell.json"):
        cell.write_text(json.dumps(json.loads(cell.read_text()) | change))
    task = collect([made.root]).tasks["task"]
    table = costs(task, compare(task))
    row = dict(zip([h.title for h in table.heads], table.rows[1], strict=True))
    assert row["published parameters (M)"].raw == params and row["published MAdds (G)"].raw == gmadds
    other = {**change, "arguments": {"num_kernels": 5}}
    for cell in made.root.glob("task/a2d2cplus/*/cell.json"):
        cell.write_text(json.dumps(json.loads(cell.read_text()) | other))
    assert published.counts(collect([made.root]).tasks["task"].models["a2d2cplus"]) is None
