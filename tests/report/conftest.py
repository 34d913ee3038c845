"""Fabricated studies: folders as `dynconv study` leaves them; made-up numbers test the report, not the hosts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

DATA = {
    "timm": {"name": "Tiny ImageNet, 20 classes", "train": 9000, "valid": 1000, "test": 1000, "classes": 20},
    "mmseg": {"name": "VOC 2012", "train": 162, "valid": 18, "test": 120, "classes": 21},
    "tsai": {"name": "Adiac", "train": 703, "valid": 0, "test": 78, "classes": 37},
}
VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
RATIOS = {
    "static": 1.0,
    "globalsoft": 1.01,
    "localsoft": 1.2,
    "hard": 1.02,
    "odconv": 1.03,
    "odconv4x": 1.08,
    "orconv": 4.0,
}


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


class Fabricated:
    """A study under construction."""

    def __init__(self, root: Path, name: str = "made-up") -> None:
        self.root, self.plan = root, {"name": name, "tasks": {}}

    def task(
        self,
        name: str,
        host: str,
        scores: Mapping[str, Sequence[float]],
        networks: Sequence[str] = ("resnet18",),
        folds: bool = False,
        costs: bool = True,
        per_class: Sequence[str] = (),
        losses: Mapping[str, Sequence[float]] | None = None,
        **record: Any,
    ) -> Fabricated:
        """Adds a task; `scores` by model's folder name, one a unit."""
        models = list(dict.fromkeys(key.rpartition("-")[2] for key in scores))
        units = max(len(v) for v in scores.values())
        self.plan["tasks"][name] = {
            "host": host,
            "data": {"name": "x"},
            "networks": list(networks),
            "models": models,
            "recipe": "study",
            "options": {},
            **({"folds": units} if folds else {"seeds": units}),
        }
        write(self.root / "study.yaml", yaml.safe_dump(self.plan, sort_keys=False))
        for key, values in scores.items():
            for i, score in enumerate(values):
                loss = losses[key][i] if losses else 2 * (1 - score)
                self.cell(name, host, key, i, score, loss, folds, units, networks, per_class, record)
        if costs:
            self.costs(name, scores)
        return self

    def cell(self, task, host, key, i, score, loss, folds, units, networks, per_class, extra) -> None:
        operator = key.rpartition("-")[2]
        unit = f"{'fold' if folds else 'seed'}{i}"
        folder = self.root / task / key / unit
        data = DATA[host] | {"unit": "series" if host == "tsai" else "images", "real": True, "options": {}}
        record = {
            "format": 1,
            "task": task,
            "host": host,
            "network": key.rpartition("-")[0] or networks[0],
            "operator": operator,
            "label": operator,
            "recipe": "study",
            "options": {},
            "seed": i,
            "fold": i if folds else None,
            "folds": units if folds else None,
            "unit": unit,
            "data": data,
            "score_name": "mIoU" if host == "mmseg" else "accuracy",
            "command": ["python", "-m", "trainer", "--model", key, "--seed", str(i)],
            "inputs": "0" * 64,
            "status": "done",
            "seconds": 600.0 * RATIOS.get(operator, 1.5) + 10 * i,
            "memory_mb": 900.0,
            "versions": {"torch": "2.9.0", "timm": "1.0.20"},
            "git": {"commit": "abcdef0123456789", "dirty": False},
            "machine": {"cpu": "a processor", "system": "Linux"},
            "ended": "2026-01-01T00:00:00",
        } | extra
        write(folder / "cell.json", record)
        rng = np.random.default_rng(i + len(key))
        steps = list(range(1, 13))
        rise = [score * (1 - np.exp(-s / 3)) + 0.01 * rng.standard_normal() for s in steps]
        metrics = {
            "score": score,
            "loss": loss,
            "per_class": {c: min(1.0, score * (1.3 - 0.8 * n / len(per_class))) for n, c in enumerate(per_class)}
            or None,
            "epochs": 12,
            "kept_epoch": 12,
            "curve": {
                "unit": "epoch",
                "steps": steps,
                "train_loss": [3 * (1 - r) for r in rise],
                "valid_loss": [3.2 * (1 - r) for r in rise],
                "valid_score": rise,
            },
            "predictions": None,
        }
        write(folder / "metrics.json", metrics)

    def costs(self, task: str, keys: Sequence[str], speed: float = 1.0) -> None:
        made = {}
        for n, key in enumerate(keys):
            ratio = RATIOS.get(key.rpartition("-")[2], 1.5)
            base = speed * (1 + n // 6)
            made[key] = {
                "params": int(11.2e6 * (1 + n / 10)),
                "macs": int(0.56e9 * ratio),
                "input_size": [1, 3, 64, 64],
                "latency_ms": {
                    "1": [9 * ratio * base, 10 * ratio * base, 11 * ratio * base],
                    "64": [500, 510 * ratio, 520 * ratio],
                },
                "memory_mb": {"inference_64": 80 * ratio, "training_8": 130 * ratio},
            }
        write(self.root / task / "costs.json", {"made": "2026-01-01", "threads": 2, "models": made})


@pytest.fixture
def fabricate(tmp_path: Path) -> Callable[..., Fabricated]:
    """Makes an empty study in a folder of the given name, or of one that is not taken."""

    def make(name: str = "study") -> Fabricated:
        free = next(n for i in range(99) if not (tmp_path / (n := name + "-" * i)).exists())
        (tmp_path / free).mkdir()
        return Fabricated(tmp_path / free, name)

    return make
