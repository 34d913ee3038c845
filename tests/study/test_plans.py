"""Plans: what is shipped is whole, and what is wrong in one is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from studies import SERIES, write_plan

from dynconv_plugins.errors import UnknownName, UserError
from dynconv_plugins.study import hosts, plan, reading
from dynconv_plugins.study.cells import expand
from dynconv_plugins.study.hosts import images, masks, series
from dynconv_plugins.study.hosts.common import Data


def test_the_issues_plans_are_shipped() -> None:
    assert set(plan.names()) == {"study", "quick", "adiac", "tiny_imagenet", "voc", "backbone", "ablations", "tuning"}


@pytest.mark.parametrize("name", plan.names())
def test_every_shipped_plan_is_whole(name: str) -> None:
    made = plan.load(name)
    assert made.about and all(task.about for task in made.tasks)
    for task in made.tasks:
        assert plan.STATIC in [model.operator for model in task.models]  # nothing is compared without its static twin
    keys = [cell.key for cell in expand(made, Path("x"))]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", plan.names())
def test_the_trainers_take_what_a_shipped_plan_says(name: str) -> None:
    """Networks, recipes and options, without data or training."""
    import timm

    import timm_models  # noqa: F401 - registers the models

    data = Data("x", Path("x"), 9, 1, 1, 2, "samples", True, {"pixels": 64, "length": 9, "variables": 1}, "", "")
    for cell in expand(plan.load(name), Path("x")):
        if cell.unit:
            continue
        host = hosts.get(cell.task.host)
        assert host.recipe(cell.task.recipe)
        if cell.task.host == "timm":
            assert timm.is_model(f"{cell.network}_{cell.model.operator}")
        elif cell.task.host == "tsai":
            assert cell.network in series.DYNAMIC
        else:
            assert cell.network in masks.HEADS and set(cell.task.options) <= set(masks.OPTIONS)
        host.check(host.command(cell, data, cell.folder))


def test_the_study_is_the_papers() -> None:
    made = plan.load("study")
    variants = {"static", "globalsoft", "localsoft", "hard", "odconv", "orconv"}
    assert [task.host for task in made.tasks] == ["timm", "mmseg", "tsai"]
    assert all({m.operator for m in task.models} == variants for task in made.tasks[:2])
    assert made.tasks[2].folds == 10
    recipe = images.recipe(made.tasks[0].recipe)
    assert (recipe["opt"], recipe["lr"], recipe["batch_size"], recipe["epochs"]) == ("adam", 1e-3, 32, 30)
    assert (recipe["sched"], recipe["early_stop"], recipe["drop"]) == ("plateau", 10, 0.2)
    recipe = series.recipe(made.tasks[2].recipe)
    assert (recipe["lr"], recipe["batch_size"], recipe["epochs"], recipe["schedule"]) == (1e-3, 32, 30, "plateau")


def test_first_seeds_come_first() -> None:
    made = plan.parse({"tasks": {"a": {**SERIES, "seeds": 2, "models": ["static", "odconv"]}}}, "p")
    assert [c.key for c in expand(made, Path("x"))] == [
        "a/static/seed0", "a/odconv/seed0", "a/static/seed1", "a/odconv/seed1",
    ]  # fmt: skip


def test_a_part_of_a_plan() -> None:
    part = plan.narrowed(plan.load("quick"), ["series", "folds"], None, ["odconv"], 7)
    assert [t.name for t in part.tasks] == ["series", "folds"]
    assert all([m.label for m in t.models] == ["static", "odconv"] for t in part.tasks)
    assert part.tasks[0].seeds == 7 and part.tasks[1].folds == 5
    whole = plan.load("adiac")
    few = plan.narrowed(whole, ["official"], ["FCN"], ["odconv"])
    names = {cell.key for cell in expand(few, Path("x"))}
    assert len(names) == 10 and names < {cell.key for cell in expand(whole, Path("x"))}


def test_a_task_of_several_recipes_is_several_tasks() -> None:
    raw = {"tasks": {"a": {**SERIES, "recipe": ["one-cycle", "strong"]}, "b": SERIES}}
    made = plan.parse(raw, "p")
    assert [(t.name, t.recipe) for t in made.tasks] == [
        ("a-one-cycle", "one-cycle"),
        ("a-strong", "strong"),
        ("b", "one-cycle"),
    ]
    alone = plan.parse({"tasks": {"a-strong": {**SERIES, "recipe": "strong"}}}, "p")
    assert made.tasks[1] == alone.tasks[0]
    with pytest.raises(UserError, match="two tasks are called a-strong"):
        plan.parse({"tasks": {"a": {**SERIES, "recipe": ["strong"]}, "a-strong": SERIES}}, "p")


BAD = [
    ({"options": {"seed": 5}}, "the seed is the cell's own"),
    ({"host": "keras"}, "unknown host 'keras'"),
    ({"models": ["odcnv"]}, "did you mean odconv"),
    ({"models": ["static", "static"]}, "two models are called static"),
    ({"models": [{"operator": "odconv", "label": "a/b"}]}, "folder's name"),
    ({"models": [{"operator": "static", "where": "initial"}]}, "takes no arguments"),
    ({"models": None}, "models missing"),
    ({"networks": ["FCN", "FCN"]}, "a network is named twice"),
    ({"epochs": 3}, "unknown entry"),
    ({"folds": 1}, "at least 2"),
    ({"seeds": "many"}, "whole number"),
    ({"options": 3}, "takes a mapping"),
    ({"data": {"classes": 3}}, "no name"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said for _, said in BAD])
def test_one_line_says_what_is_wrong(tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(UserError, match=said) as e:
        plan.load(write_plan(tmp_path / "p.yaml", a={**SERIES, **change}))
    assert "\n" not in str(e.value)


def test_files_that_are_no_plans(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("tasks: [")
    for path, said in (
        (tmp_path / "p.yaml", "no YAML"),
        (tmp_path / "q.yaml", "no plan"),
        ("quik", "did you mean quick"),
    ):
        with pytest.raises(UserError, match=said):
            plan.load(path)
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"name": "x"}))
    with pytest.raises(UserError, match="needs 'tasks:'"):
        plan.load(tmp_path / "p.yaml")


def test_ablations_are_those_of_a2d2cs_tables() -> None:
    tasks = {t.name: t for t in plan.load("ablations").tasks}
    varied = {
        name: [(m.where, dict(m.arguments)) for m in t.models if m.operator != "static"] for name, t in tasks.items()
    }
    assert [w for w, _ in varied["placement"]][1:] == ["initial", "median", "terminal"]
    assert varied["points"] == [(None, {"points": m}) for m in (50, 100, 150, 200)]
    assert varied["kernels"] == [(None, {"num_kernels": k}) for k in (4, 8, 12, 16)]
    assert varied["sampling"] == [(None, {"sampling": s}) for s in ("random", "fixed", "none")]
    assert varied["blocks"] == [("block_first", {"num_kernels": 8})] and len(tasks["blocks"].networks) == 2


def test_a_part_leaves_tasks_out_that_lack_it() -> None:
    study = plan.narrowed(plan.load("study"), networks=["fpn"])
    assert [t.name for t in study.tasks] == ["segmentation"]
    kernels = plan.narrowed(plan.load("ablations"), models=["K4"])
    assert [(t.name, [m.label for m in t.models]) for t in kernels.tasks] == [("kernels", ["static", "K4"])]
    more = plan.narrowed(plan.load("quick"), tasks=["images"], models=["dyconv"])
    assert [(t.name, [m.label for m in t.models]) for t in more.tasks] == [("images", ["static", "dyconv"])]
    with pytest.raises(UnknownName, match="did you mean dyconv"):
        plan.narrowed(plan.load("quick"), models=["dycnv"])
    with pytest.raises(UserError, match="has all that was asked for"):
        plan.narrowed(plan.load("study"), tasks=["images"], networks=["fpn"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"name": "Diatoms", "classes": "5"}}, "classes is a positive whole number"),
        ({"data": {"name": "Adiac", "train": 10}}, "Adiac is as large as it is; remove train"),
        ({"data": {"name": "Diatoms", "holdout": 2}}, "holdout is a part"),
        ({"data": {"name": "Diatoms", "holdout": 0.3}}, "holdout is for score_on: held-out"),
        ({"host": "mmseg", "networks": "fpn", "data": {"name": "voc2012", "classes": 3}}, "remove classes"),
    ],
)
def test_data_that_make_no_sense(tmp_path: Path, change: dict, said: str) -> None:
    raw = {"host": "tsai", "networks": "FCN", "models": "static", "recipe": "strong", **change}
    task = plan.parse({"tasks": {"a": raw}}, "p").tasks[0]
    with pytest.raises(UserError, match=said):
        hosts.get(task.host).prepare(task, {"voc2012": tmp_path}, tmp_path)


@pytest.mark.parametrize("text", ["tasks: {a: {}, a: {}}", "tasks:\n  a:\n    options: {lr: 1, epochs: 2, lr: 2}"])
def test_nothing_is_there_twice(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=r"line \d: (a|lr) is there twice"):
        plan.load(tmp_path / "p.yaml")


def test_merged_mappings_may_say_another_value(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("one: &one {a: 1, b: 2}\ntwo: {<<: *one, b: 3}\n")
    assert reading.read(tmp_path / "p.yaml")["two"] == {"a": 1, "b": 3}


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "a b"])
def test_names_are_those_of_folders(name: str) -> None:
    with pytest.raises(UserError, match="becomes a folder's"):
        plan.parse({"name": name, "tasks": {"a": SERIES}}, "p")
    with pytest.raises(UserError, match="becomes a folder's"):
        plan.parse({"tasks": {"a": {**SERIES, "models": [{"operator": "odconv", "label": name}]}}}, "p")


def test_what_is_left_empty_is_not_there() -> None:
    made = plan.parse({"name": None, "about": None, "tasks": {"a": {**SERIES, "about": None}}}, "p")
    assert (made.name, made.about, made.tasks[0].about) == ("p", "", "")


def test_seeds_or_folds() -> None:
    with pytest.raises(UserError, match="seeds or folds, not both"):
        plan.parse({"tasks": {"a": {**SERIES, "seeds": 3, "folds": 4}}}, "p")
