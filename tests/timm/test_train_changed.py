"""A run that goes on with other arguments, or with weights alone, does what they say."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from training import SMALL, load, make_folder

from timm_models.train.cli import main

STATIC = ("--model", "resnet18_static", "--model-kwargs", "small_stem=True", "channels=(8,8,8,8)")
FLAGS = (*STATIC, *SMALL, "--batch-size", 4, "--lr", 0.02)
PLATEAU = ("--sched", "plateau", "--warmup-epochs", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), train=4, val=2)


@pytest.fixture(scope="module")
def before(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three epochs: with the plateau schedule, and with none."""
    out = tmp_path_factory.mktemp("before")
    train(folder, out / "plateau", *PLATEAU)
    train(folder, out / "constant", "--sched", "none")
    return out


def train(folder: Path, out: Path, *args: object, epochs: int = 3) -> dict:
    """Trains into the folder `out` and returns its last checkpoint."""
    words = (folder, *FLAGS, "--epochs", epochs, "--output", out.parent, "--experiment", out.name, *args)
    assert main([*map(str, words)]) == 0
    return load(out / "last.pth.tar")


def rates(state: dict) -> list[float]:
    return [row["lr"] for row in state["trainer"]["history"]]


def test_a_plateaus_warm_up_lies_behind_what_starts_later(folder: Path, before: Path, tmp_path: Path) -> None:
    went = load(before / "plateau" / "last.pth.tar")
    assert rates(went) == pytest.approx([1e-5, (1e-5 + 0.02) / 2, 0.02])
    for name, words, epochs in (
        ("weights", ("--resume", before / "plateau" / "last.pth.tar", "--no-resume-opt"), 4),
        ("later", ("--start-epoch", 3), 4),
        ("in it", ("--start-epoch", 1), 3),
    ):
        assert rates(train(folder, tmp_path / name, *PLATEAU, *words, epochs=epochs))[-1] == pytest.approx(0.02), name
    start = ("--resume", before / "plateau" / "checkpoint-0.pth.tar", "--lr", 0.04)
    changed = rates(train(folder, tmp_path / "changed", *PLATEAU, *start))
    assert changed == pytest.approx([1e-5, (1e-5 + 0.04) / 2, 0.04])


def test_options_of_the_optimiser_are_those_of_now(folder: Path, before: Path, tmp_path: Path, caplog) -> None:
    start = ("--sched", "none", "--resume", before / "constant" / "last.pth.tar")
    other = ("--lr", 0.001, "--weight-decay", 0.5, "--momentum", 0.1, "--opt-kwargs", "nesterov=False")
    with caplog.at_level(logging.WARNING, "train"):
        state = train(folder, tmp_path / "new", *start, *other, epochs=4)
    groups = state["optimizer"]["param_groups"]
    assert {g["lr"] for g in groups} == {0.001} and {g["weight_decay"] for g in groups} == {0, 0.5}
    assert {g["momentum"] for g in groups} == {0.1} and {g["nesterov"] for g in groups} == {False}
    assert rates(state)[-2:] == [0.02, 0.001]
    for words in ("lr 0.02 -> 0.001", "weight_decay 2e-05 -> 0.5", "momentum 0.9 -> 0.1", "opt_kwargs {}"):
        assert words in caplog.text, caplog.text
    # What momentum had gathered stays.
    then = load(before / "constant" / "last.pth.tar")["optimizer"]["state"]
    resumed = train(folder, tmp_path / "same", *start, *other, epochs=3)["optimizer"]["state"]
    torch.testing.assert_close(resumed, then, rtol=0, atol=0)


def test_options_of_the_plateau_are_those_of_now(folder: Path, before: Path, tmp_path: Path, caplog) -> None:
    start = (*PLATEAU, "--resume", before / "plateau" / "last.pth.tar")
    other = ("--patience-epochs", 2, "--decay-rate", 0.5, "--min-lr", 0.0001)
    with caplog.at_level(logging.WARNING, "train"):
        state = train(folder, tmp_path / "new", *start, *other, epochs=4)
    inner = state["trainer"]["plateau"]["inner"]
    assert (inner["patience"], inner["factor"], inner["min_lrs"]) == (2, 0.5, [0.0001, 0.0001])
    then = load(before / "plateau" / "last.pth.tar")["trainer"]["plateau"]["inner"]
    assert inner["last_epoch"] == then["last_epoch"] + 1
    assert "patience_epochs 10 -> 2" in caplog.text and "decay_rate 0.1 -> 0.5" in caplog.text
    # The best accuracy is no loss to do better than.
    state = train(folder, tmp_path / "loss", *start, "--eval-metric", "loss", epochs=4)
    inner = state["trainer"]["plateau"]["inner"]
    assert inner["mode"] == "min" and inner["best"] == pytest.approx(state["trainer"]["history"][-1]["eval"]["loss"])


def test_going_on_takes_the_optimiser_along_after_a_start_without(folder: Path, before: Path, tmp_path: Path) -> None:
    start = ("--sched", "none", "--resume", before / "constant" / "last.pth.tar", "--no-resume-opt")
    train(folder, tmp_path / "new", *start, epochs=4)
    settings = yaml.safe_load((tmp_path / "new" / "args.yaml").read_text())
    assert "no_resume_opt" not in settings and "resume" not in settings
    shutil.copytree(tmp_path / "new", tmp_path / "copy")
    whole = train(folder, tmp_path / "new", *start[:2], "--resume", "auto", epochs=5)
    words = ("-c", tmp_path / "copy" / "args.yaml", "--output", tmp_path, "--experiment", "copy", "--epochs", 5)
    assert main([*map(str, (*words, "--resume", "auto"))]) == 0
    resumed = load(tmp_path / "copy" / "last.pth.tar")
    torch.testing.assert_close(resumed["optimizer"]["state"], whole["optimizer"]["state"], rtol=0, atol=0)


def test_the_best_of_the_run_before_is_not_said_to_lie_here(folder: Path, tmp_path: Path, caplog, monkeypatch) -> None:
    scores = iter([60.0, 20.0, 10.0])
    monkeypatch.setattr(
        "timm_models.train.epochs._validate", lambda job: {"loss": 1.0, "top1": next(scores), "top5": 100.0}
    )
    first, best = tmp_path / "first", tmp_path / "second" / "model_best.pth.tar"
    with caplog.at_level(logging.INFO, "train"):
        train(folder, first, epochs=2)
        assert f"best top1 60.0000 in epoch 0: {first / 'model_best.pth.tar'}" in caplog.text
        train(folder, tmp_path / "second", "--resume", first / "last.pth.tar", epochs=3)
    assert load(best)["epoch"] == 1
    assert f"best top1 60.0000 in epoch 0, in the run before; {best} is of epoch 1" in caplog.text


def test_another_number_of_processes_is_told(folder: Path, before: Path, tmp_path: Path, caplog) -> None:
    state = load(before / "constant" / "last.pth.tar")
    assert state["args"]["world_size"] == 1
    state["args"]["world_size"] = 2
    torch.save(state, tmp_path / "two.pth.tar")
    with caplog.at_level(logging.WARNING, "train"):
        train(folder, tmp_path / "new", "--sched", "none", "--resume", tmp_path / "two.pth.tar")
    assert "arguments changed: processes 2 -> 1" in caplog.text
