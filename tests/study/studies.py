"""Small studies on the built-in diatoms, run by the real command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import yaml

SERIES = {
    "host": "tsai",
    "data": {"name": "Diatoms", "classes": 3, "train": 6, "test": 6},
    "networks": "Net1",
    "models": ["static"],
    "recipe": "one-cycle",
    "options": {"epochs": 1, "batch_size": 8},
}
IMAGES = {
    "host": "timm",
    "data": {"name": "diatoms", "classes": 2, "train": 10, "test": 4, "holdout": 0.2},
    "networks": "resnet18",
    "models": ["odconv"],
    "recipe": "tiny_imagenet_study",
    "options": {"input_size": [3, 32, 32], "epochs": 1, "batch_size": 8},
}
MASKS = {
    "host": "mmseg",
    "data": {"name": "diatoms", "classes": 2, "train": 6, "test": 3, "holdout": 0.2},
    "networks": "fpn",
    "models": ["odconv"],
    "recipe": "study",
    "options": {"pixels": 32, "epochs": 1, "batch_size": 4},
}


TASK = {**SERIES, "options": {"epochs": 3, "batch_size": 8}}
STUDY = {"a": TASK, "b": {**TASK, "models": ["odconv"]}}  # what the fixture `finished` has run


def write_plan(path: Path, **tasks: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"tasks": tasks}, sort_keys=False))
    return path


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "dynconv_plugins.cli", "study", *map(str, args)]


def environment() -> dict[str, str]:
    """Without real data: what is tested here is made on the spot."""
    kept = {name: value for name, value in os.environ.items() if name != "DYNCONV_DATA"}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "150"}
