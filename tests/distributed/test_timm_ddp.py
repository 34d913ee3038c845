"""Two processes with half the batch train what one process with the whole batch does: timm's networks.

Equal are the samples of every step, their augmentation, the learning rate, the temperature, the budget of hard
attention and hence, to rounding, losses and weights. Batch norm is the exception: its statistics are a process's own
(``--sync-bn`` needs GPUs), so the networks here have group norm, and operators without batch norm in their attention.
Dropout, mixup and erasing are drawn per process or batch, and off.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from side_by_side import assert_same_weights, run

pytest.importorskip("timm")

from timm_models.__main__ import main
from timm_models.train.replay import EpochSampler

NETWORK = {"small_stem": True, "channels": (8, 16, 16, 32), "norm_layer": "groupnorm1"}
OPERATORS = {"dyconv": {}, "hard": {"ramp": 2}}
FLAGS = (
    "--img-size", 32, "--epochs", 2, "--lr-base", 1.0, "--lr-base-scale", "linear", "--warmup-epochs", 0,
    "--temperature-epochs", 1, "--workers", 0, "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """17 training images, so that the last batch is dropped, and 5 for validation, so that the ranks' shares differ."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 17), ("val", 5)):
        for number in range(count):
            folder = root / split / f"class{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.normal(60 + 60 * (number % 3), 40, (40, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize("length", [16, 17])
def test_a_step_sees_the_same_samples(length: int) -> None:
    whole = EpochSampler(length, seed=3)
    ranks = [EpochSampler(length, 3, rank, 2) for rank in range(2)]
    for sampler in (whole, *ranks):
        sampler.start(epoch=5)
    one, (a, b) = list(whole), map(list, ranks)
    for step in range(length // 8):
        shared = a[4 * step : 4 * step + 4] + b[4 * step : 4 * step + 4]
        assert sorted(shared) == sorted(one[8 * step : 8 * step + 8])


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def check(operator: str, images: Path, folder: Path, *flags: object) -> None:
    options = NETWORK | OPERATORS[operator]
    kwargs = [f"{name}={str(value).replace(' ', '')}" for name, value in options.items()]
    model = ("--model", f"resnet18_{operator}", "--model-kwargs", *kwargs)
    states = []
    for processes in (1, 2):
        where = ("--batch-size", 8 // processes, "--output", folder, "--experiment", processes)
        words = ["train", *map(str, (images, *model, *FLAGS, *flags, *where))]
        if processes == 1:
            assert not main(words)
        else:
            said = run("timm_models", *words, processes=processes, cwd=folder)
            assert "2 x cpu" in said and said.count("writing to") == 1
        states.append([read(folder / f"{processes}" / f"{n}.pth.tar") for n in ("checkpoint-0", "last")])
    before, one = states[0]
    two = states[1][1]
    assert_same_weights(one["state_dict"], two["state_dict"], before["state_dict"])
    rows = [state["trainer"]["history"] for state in (one, two)]
    assert len(rows[0]) == len(rows[1]) == 2
    for expected, row in zip(*rows, strict=True):
        for part in ("train", "eval", "budget"):
            assert row[part] == pytest.approx(expected[part], rel=1e-4, abs=1e-5)
        assert row["lr"] == expected["lr"]
    assert bool(rows[0][-1]["budget"]) == (operator == "hard")


@pytest.mark.parametrize("operator", OPERATORS)
def test_two_processes_train_what_one_does(operator: str, images: Path, tmp_path: Path) -> None:
    check(operator, images, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--grad-checkpointing",), ("--grad-accum-steps", 2)], ids=lambda f: f[0][2:])
def test_budget_with_repeated_and_with_accumulated_forwards(flags: tuple, images: Path, tmp_path: Path) -> None:
    check("hard", images, tmp_path, *flags)
