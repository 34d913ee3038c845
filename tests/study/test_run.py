"""Studies by the command itself: one cell of each host, what lies in its folder, and what a second call does."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import by_hand
import numpy as np
import pytest
import timm
import torch
from studies import IMAGES, MASKS, SERIES, STUDY, TASK, write_plan

import timm_models  # noqa: F401 - registers the models
from dynconv_plugins import cli
from dynconv_plugins.study import hosts


def cell(folder: Path) -> tuple[dict, dict]:
    return tuple(json.loads((folder / name).read_text()) for name in ("cell.json", "metrics.json"))


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: mmengine writes its configuration often, in seconds if a path fills a line."""
    with tempfile.TemporaryDirectory(prefix="s") as folder:
        yield Path(folder)


def test_a_cell_of_each_host(short: Path, study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynconv_plugins.study.costing.SECONDS", 0.1)
    path, out = write_plan(short / "p.yaml", images=IMAGES, masks=MASKS, series=SERIES), short / "out"
    done = study(path, "--out", out, "--no-costs")
    assert done.returncode == 0, done.stdout + done.stderr
    # Net1's static twin is trained for both stages of the dynamic one
    for key, most, epochs in (("images/odconv", 8, 1), ("masks/odconv", None, 1), ("series/static", 18, 2)):
        record, metrics = cell(out / key / "seed0")
        assert record["status"] == "done" and record["command"] and record["seconds"] > 0
        assert {"torch", "Python", "timm"} <= record["versions"].keys() and record["machine"]["cores"]
        assert 0 <= metrics["score"] <= 1 and metrics["curve"]["steps"] == [*range(1, epochs + 1)]
        assert metrics["kept_epoch"] == epochs
        assert math.isfinite(metrics["curve"]["train_loss"][0])
        if most:
            stored = np.load(out / key / "seed0" / "predictions.npz")
            assert len(stored["truth"]) == most
            assert metrics["score"] == pytest.approx((stored["truth"] == stored["predicted"]).mean())

    # the scores of images and masks, counted by hand from the checkpoints
    folder = out / "images" / "odconv" / "seed0"
    record, metrics = cell(folder)
    weights, stored = by_hand.stored(folder / "run" / "model_best.pth.tar"), np.load(folder / "predictions.npz")
    net = timm.create_model("resnet18_odconv", num_classes=2)
    truth, logits = by_hand.classified(net, weights["state_dict"], Path(record["data"]["path"]) / "test")
    assert stored["truth"].tolist() == truth.tolist()
    assert stored["predicted"].tolist() == logits.argmax(1).tolist()
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(truth)).item()
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    folder = out / "masks" / "odconv" / "seed0"
    record, metrics = cell(folder)
    (best,) = (folder / "run").glob("best_*.pth")
    voc = Path(record["data"]["path"]) / "VOCdevkit" / "VOC2012"
    counted = by_hand.overlaps(by_hand.segmented(folder / "config.py", best, voc))
    known = [v for v in metrics["per_class"].values() if v is not None]
    assert known == pytest.approx(counted.pop("ious")) and len(known) < len(metrics["per_class"]) == 21
    assert {name: metrics[name] for name in counted} == pytest.approx(counted)

    # the costs that were left out are all that is left to do
    done = study(path, "--out", out, "--tasks", "series", "--threads", 1)
    assert done.returncode == 0 and "1 cells, 1 of them finished before" in done.stdout
    costs = json.loads((out / "series" / "costs.json").read_text())["models"]["static"]
    assert costs["params"] > 0 and set(costs["latency_ms"]) == {"1", "64"}
    low, median, high = costs["latency_ms"]["1"]
    assert 0 < low <= median <= high and costs["memory_mb"]["training_8"] > 0
    assert costs["memory_mb"]["weights"] == pytest.approx(4 * costs["params"] / 2**20, rel=0.1)

    # finished cells are not run again, and nothing is measured again
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.json")}
    again = study(path, "--out", out, "--no-costs")
    assert again.returncode == 0 and "3 of them finished before" in again.stdout
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*.json")}

    # moved, its networks can still be looked into
    moved = short / "moved"
    shutil.move(out, moved)
    assert "3 of them finished before" in study(path, "--out", moved, "--no-costs").stdout
    for key, host in (("images/odconv", "timm"), ("masks/odconv", "mmseg"), ("series/static", "tsai")):
        assert len(hosts.get(host).samples(moved / key / "seed0", 1)) == 1


def test_changed_inputs_are_run_again_and_the_rest_is_not(tmp_path: Path, study, finished: tuple[Path, float]) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    first = (tmp_path / "out/b/odconv/seed0/metrics.json").stat().st_mtime_ns
    changed = {**STUDY["a"], "options": {"epochs": 1, "batch_size": 8}}
    other = {**STUDY["b"], "about": "a description is no input"}
    done = study(write_plan(tmp_path / "p.yaml", a=changed, b=other), "--out", "out", "--no-costs")
    assert done.returncode == 0 and "inputs changed (options)" in done.stdout
    assert (tmp_path / "out/b/odconv/seed0/metrics.json").stat().st_mtime_ns == first
    assert cell(tmp_path / "out/a/static/seed0")[1]["epochs"] == 2  # both stages of the dynamic twin
    assert cell(tmp_path / "out/old/a/static/seed0.1")[1]["epochs"] == 6  # nothing is lost


def test_a_study_goes_on_elsewhere_from_the_records_of_its_report(
    tmp_path: Path, study, finished: tuple[Path, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynconv_plugins.study.costing.SECONDS", 0.1)
    assert cli.run(["report", str(finished[0] / "out"), "--no-pictures", "--out", str(tmp_path / "report")]) == 0
    with zipfile.ZipFile(tmp_path / "report" / "records.zip") as file:
        file.extractall(tmp_path)
    before = (tmp_path / "out/b/odconv/seed0/metrics.json").read_bytes()
    assert not (tmp_path / "out/b/odconv/seed0/run").exists(), "no weights"
    path = write_plan(tmp_path / "p.yaml", **STUDY, c={**TASK, "options": {"epochs": 1, "batch_size": 8}})
    done = study(path, "--out", "out", "--threads", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 cells, 2 of them finished before" in done.stdout
    assert (tmp_path / "out/b/odconv/seed0/metrics.json").read_bytes() == before
    assert cell(tmp_path / "out/b/odconv/seed0")[0]["data"]["path"].startswith(str(tmp_path / "out")), (
        "where they are here"
    )
    assert json.loads((tmp_path / "out/b/costs.json").read_text())["models"]["odconv"]["latency_ms"]


def test_dry_run_writes_nothing_but_data(tmp_path: Path, study) -> None:
    wrong = {**SERIES, "models": [{"operator": "odconv", "num_kernels": -1}]}
    blocked = {**SERIES, "options": {"epochs": 1, "pretrained_path": "runs/backbone/w.pth"}, "seeds": 2}
    path = write_plan(tmp_path / "p.yaml", a=SERIES, b=wrong, c=blocked, d={**SERIES, "data": "Adiac"})
    done = study(path, "--out", "out", "--dry-run")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "timing 3 training steps: a/static" in done.stdout
    # What cannot run for want of a file, or of its data, is listed all the same.
    assert all(re.search(rf"{key} +│ blocked", done.stdout) for key in ("c/static/seed0", "c/static/seed1"))
    assert re.search("d/static/seed0 +│ blocked", done.stdout)
    assert "cannot run c: pretrained_path runs/backbone/w.pth is not there; made by: dynconv study backbone" in (
        done.stdout
    )
    assert "a: 1 cells to run, about" in done.stdout and "2 of 5 cells to run, about" in done.stdout
    assert "with 1 at a time; 3 are blocked" in done.stdout
    assert "a/static/seed0" in done.stdout and "timed steps" in done.stdout and "about" in done.stdout
    assert "cannot run b/odconv/seed0: " in done.stdout and "num_kernels" in done.stdout
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["data"]


@pytest.mark.slow  # what jobs do has tests of its own in tests/distributed
def test_a_study_as_jobs_of_submitit(tmp_path: Path, study) -> None:
    path = write_plan(tmp_path / "p.yaml", a=SERIES)
    words = (path, "--out", "out", "--no-costs", "--cluster", "local")
    refused = study(*words, "--cluster-arg", "slurm_partitoin=gpu")
    assert refused.returncode == 2 and "did you mean" in refused.stderr and refused.stderr.count("\n") == 1
    done = study(*words, "--cluster-arg", "timeout_min=10", "--cluster-arg", "cpus_per_task=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 cells submitted to local" in done.stdout
    assert cell(tmp_path / "out/a/static/seed0")[0]["status"] == "done"


@pytest.mark.slow  # each host's trainer under torchrun has tests of its own in tests/distributed
def test_two_processes_share_a_cell(tmp_path: Path, study) -> None:
    shared = {**SERIES, "processes": 2, "options": {"epochs": 2, "batch_size": 8}}
    done = study(write_plan(tmp_path / "p.yaml", a=shared), "--out", "out", "--no-costs")
    assert done.returncode == 0, done.stdout + done.stderr
    record, metrics = cell(tmp_path / "out/a/static/seed0")
    words = " ".join(record["command"])
    assert "torch.distributed.run" in words and "--batch-size 4" in words and metrics["epochs"] == 4
