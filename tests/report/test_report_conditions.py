"""Runs of one task that were made under several conditions: other commits, machines, libraries, arguments."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("yaml")

from made import STATIC

from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.compare import compare
from dynconv_plugins.report.cost_table import costs

A = {"cpu": "AMD EPYC", "cores": 2, "system": "Linux x86_64", "gpu": None}
B = {"cpu": "Intel Xeon", "cores": 16, "system": "Linux x86_64", "gpu": "NVIDIA H200"}
SCORES = {"static": [0.60, 0.61, 0.62], "odconv": [0.63, 0.65, 0.64]}
AT_A, AT_B = "AMD EPYC, 2 cores, Linux x86_64", "Intel Xeon, 16 cores, Linux x86_64, NVIDIA H200"


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_arms_of_several_commits_are_named(fabricate) -> None:
    made = fabricate().task("task", "timm", {"static": [0.5] * 2, "odconv": [0.6] * 2, "hard": [0.5] * 2})

    def said(**commits: tuple[str, str]) -> list[str]:
        for key, hashes in commits.items():
            for seed, commit in enumerate(hashes):
                edit(made.root / f"task/{key}/seed{seed}/cell.json", git={"commit": commit * 10})
        return [note for note in collect([made.root]).tasks["task"].notes if "commit" in note]

    assert said() == []
    told = "static and hard at abcdef0; ODConv at 1234123"
    assert said(odconv=("1234", "1234")) == [f"Its models differ in git commit ({told}): compare with care."]
    told = "static and hard at abcdef0; ODConv at 1234123 and 5678567"
    assert said(odconv=("1234", "5678")) == [f"Its models differ in git commit ({told}): compare with care."]
    both = ("1234", "5678")
    (line,) = said(static=both, odconv=both, hard=both)
    assert line.startswith("The runs of each model differ in git commit (1234123 and 5678567)")


def test_arms_of_several_machines_and_versions_are_named(fabricate) -> None:
    made = fabricate().task("task", "timm", {"static": [0.5] * 2, "odconv": [0.6] * 2, "hard": [0.5] * 2})

    def said(**changes) -> list[str]:
        for seed in (0, 1):
            edit(made.root / f"task/odconv/seed{seed}/cell.json", **changes)
        return collect([made.root]).tasks["task"].notes

    for key in ("static", "odconv", "hard"):
        for seed in (0, 1):
            edit(made.root / f"task/{key}/seed{seed}/cell.json", machine=A)
    assert said() == []
    (line,) = said(machine=B)
    assert line == (
        "Its models differ in the machine that trained them "
        f"(static and hard on {AT_A}; ODConv on {AT_B}): compare with care."
    )
    (line,) = said(machine=A, versions={"torch": "2.8.0", "timm": "1.0.20"})
    told = "static and hard with torch 2.9.0; ODConv with torch 2.8.0"
    assert line == f"Its models differ in versions ({told}): compare with care.", "timm's is the same"
    (line,) = said(versions={"timm": "1.0.20"})
    assert "ODConv with no torch" in line
    assert said(versions=None, machine=None) == [], "what is not known differs from nothing"


def test_a_machine_of_every_model_is_told_too(fabricate) -> None:
    made = fabricate().task("task", "timm", {"static": [0.5] * 2, "odconv": [0.6] * 2})
    for key in ("static", "odconv"):
        for seed, machine in enumerate((A, B)):
            edit(made.root / f"task/{key}/seed{seed}/cell.json", machine=machine)
    (line,) = collect([made.root]).tasks["task"].notes
    each = "The runs of each model differ in the machine that trained them"
    assert line == f"{each} ({AT_A} and {AT_B}): compare with care."


def test_costs_of_several_measurements_and_machines_are_told(fabricate) -> None:
    first = fabricate("first").task("task", "timm", {"static": STATIC, "odconv": STATIC})
    second = fabricate("second").task("task", "timm", {"hard": STATIC})

    def about(*roots) -> str:
        task = collect(roots).tasks["task"]
        return costs(task, compare(task)).about

    assert "several m" not in about(first.root)
    apart = "Latency and memory of inference are of several measurements, not to be compared: static and ODConv; hard."
    assert apart in about(first.root, second.root) and "several machines" not in about(first.root, second.root)
    for path in second.root.glob("task/*/*/cell.json"):
        edit(path, machine=B)
    on = f"static and ODConv on a processor, Linux; hard on {AT_B}. "
    told = f"The trainings were on several machines, whose times are not to be compared: {on}"
    assert told in about(first.root, second.root)


@pytest.mark.parametrize("change", [{"arguments": {"num_kernels": 8}}, {"where": "median"}])
@pytest.mark.parametrize("seeds", ["the same", "others"])
def test_one_label_with_other_arguments_is_another_model(fabricate, change: dict, seeds: str) -> None:
    """Without a label of its own, ODConv with eight kernels is in a folder that is called as plain ODConv's is."""
    first = fabricate("first").task("images", "timm", SCORES)
    second = fabricate("second").task("images", "timm", {"static": SCORES["static"], "odconv": [0.73, 0.75, 0.74]})
    for path in (second.root / "images/odconv").iterdir():
        edit(path / "cell.json", **change)
    if seeds == "others":
        shutil.rmtree(first.root / "images/odconv/seed2")
        for seed in (0, 1):
            shutil.rmtree(second.root / f"images/odconv/seed{seed}")
    study = collect([first.root, second.root])
    assert list(study.tasks) == ["first-images", "second-images"]
    means = [compare(task)[1].scores.mean for task in study.tasks.values()]
    assert means == pytest.approx([0.64, 0.74])
    (told,) = [note for note in study.notes if "not one" in note]
    assert told.startswith("The tasks called images differ in arguments and are not one")


def test_a_plan_says_arguments_before_a_run_does(fabricate) -> None:
    first = fabricate("first").task("images", "timm", SCORES)
    second = fabricate("second").task("images", "timm", SCORES)
    plan = second.plan["tasks"]["images"]
    plan["models"] = ["static", {"operator": "odconv", "num_kernels": 8}]
    (second.root / "study.yaml").write_text(json.dumps(second.plan))
    shutil.rmtree(second.root / "images/odconv")
    assert list(collect([first.root, second.root]).tasks) == ["first-images", "second-images"]
