"""What the tests of the trainer share: a small image folder, a small run, and the comparison of two runs."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from timm_models.train.cli import main

# A dynamic ResNet-18 of 80 thousand parameters.
DYNAMIC = ("--model", "resnet18_odconv", "--model-kwargs", "small_stem=True", "channels=(8,16,16,32)")
SMALL = ("--img-size", "32", "--batch-size", "8", "--warmup-epochs", "0", "--workers", "0", "--device", "cpu")


def make_folder(root: Path, classes: int = 3, train: int = 16, val: int = 4, size: int = 40) -> Path:
    """Writes ``root/{train,val}/<class>/<n>.jpg``: noise of another mean colour in each class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(60 + 60 * label, 40, (size, size, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return root


def summary(folder: Path, out: Path, *args: object) -> list[dict[str, str]]:
    """Trains in this process and returns the rows of summary.csv."""
    flags = (folder, *DYNAMIC, *SMALL, *args, "--output", out, "--experiment", "x")
    assert main([*map(str, flags)]) == 0
    with (out / "x" / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "timm_models", "train", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run(*args: object, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs the trainer in a process of its own."""
    done = subprocess.run(command(*args), env=environment(), capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, done.stderr
    return done


def fails(*args: object, code: int = 2) -> str:
    """Runs the trainer, which must end in one ``error:`` line and `code`, and returns that line."""
    done = run(*args, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and done.stderr.splitlines()[-1] == errors[0], done.stderr
    return errors[0]


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def differences(a: object, b: object, where: str = "") -> list[str]:
    """Returns where two nested states differ, bit for bit."""
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape
        return [] if same and torch.equal(a.nan_to_num(), b.nan_to_num()) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for k in a for d in differences(a[k], b[k], f"{where}/{k}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}/{i}")]
    return [] if a == b else [f"{where}: {a} != {b}"]


def assert_same_run(a: Path, b: Path, files: tuple[str, ...] = ("last", "model_best")) -> None:
    """Asserts that two runs ended in the same checkpoints (weights, average, optimiser, ranking) and summary."""
    for name in files:
        x, y = load(a / f"{name}.pth.tar"), load(b / f"{name}.pth.tar")
        for state in (x, y):
            for path in ("experiment", "output", "workers", "recovery_interval"):
                state["args"].pop(path)
        found = differences(x, y)
        assert not found, f"{name}: {len(found)} differences: {found[:10]}"
    summaries = [(folder / "summary.csv").read_text() for folder in (a, b)]
    assert summaries[0] == summaries[1], summaries
    names = [sorted(p.name for p in folder.glob("checkpoint-*")) for folder in (a, b)]
    assert names[0] == names[1], names
