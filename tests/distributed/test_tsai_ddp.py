"""Two processes with half the batch train what one process with the whole batch does: tsai's networks.

tsai's TCN has neither batch norm nor dropout, which are a process's own, and the recipes here do not augment.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from side_by_side import assert_same_weights, run

pytest.importorskip("tsai")

from dynconv_plugins.datasets import diatoms
from tsai_models.__main__ import main

# 21 series: an odd share is left out of an epoch by two processes as by one.
NETWORK = ("--arch", "TCN", "--where", "all", "--dataset", "Diatoms", "--device", "cpu", "--lr", 0.02)
RUNS = {
    "temperature": ("--operator", "dyconv", "--epochs", 2, "--temperature-epochs", 1),
    # Decisions of the validation part, by the averaged weights: the rate, the end, the epoch that is kept.
    "budget-best": ("--operator", "hard", "--operator-arg", "ramp=2", "--recipe", "study", "--epochs", 3, "--ema", 0.5),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return diatoms.make(tmp_path_factory.mktemp("diatoms"), classes=3, train=7, test=3)


def history(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pth", weights_only=True)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_does(name: str, data: Path, tmp_path: Path, monkeypatch) -> None:
    def words(*more: object, processes: int) -> list[str]:
        flags = (*NETWORK, *RUNS[name], "--data", data, "--batch-size", 8 // processes, *more)
        return ["train", *map(str, (*flags, "--out", tmp_path / str(processes)))]

    monkeypatch.setattr(sys, "argv", ["tsai_models", *words(processes=1)])
    assert not main()
    said = run("tsai_models", *words(processes=2), processes=2, cwd=tmp_path)
    assert said.count("written to") == 1 and said.count("mean") == 1
    one, two = tmp_path / "1", tmp_path / "2"
    assert not (two / "best.pth").exists()
    for expected, row in zip(history(one), history(two), strict=True):
        assert row.keys() == expected.keys() and row["stage"] == expected["stage"]
        for column in row.keys() - {"stage"}:
            assert float(row[column]) == pytest.approx(float(expected[column]), rel=1e-4, abs=1e-5)
    assert ("budget_loss" in history(two)[0]) == (name == "budget-best")
    expected, row = (json.loads((folder / "results.json").read_text())["rows"][0] for folder in (one, two))
    assert row["kept_epoch"] == expected["kept_epoch"] and row["epochs"] == expected["epochs"]
    assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4) and row["accuracy"] == expected["accuracy"]
    with np.load(one / "predictions.npz") as a, np.load(two / "predictions.npz") as b:
        assert len(a["truth"]) == 9
        assert all((a[key] == b[key]).all() for key in a)
    assert_same_weights(weights(one), weights(two))
    assert len({row["valid_loss"] for row in history(one)}) == len(history(one))  # it did train


@pytest.mark.slow
def test_pretrained_twin_augmentation_and_dropout(data: Path, tmp_path: Path) -> None:
    """What is drawn per process cannot be the same; it has to run, both stages of it, and end in one result."""
    flags = ("--arch", "Net2_DCNN", "--dataset", "Diatoms", "--data", data, "--recipe", "strong", "--epochs", 2)
    more = ("--batch-size", 4, "--mixup", 0.2, "--device", "cpu", "--seeds", 2, "--out", tmp_path / "out")
    said = run("tsai_models", "train", *flags, *more, processes=2, cwd=tmp_path)
    assert said.count("written to") == 1
    assert [row["stage"] for row in history(tmp_path / "out")] == ["twin", "twin", "main", "main"] * 2
    again = run("tsai_models", "train", *flags, *more, processes=2, cwd=tmp_path)
    assert "2 of 2 seeds were finished before" in again
