"""Studies of networks as they stand before training: real data, real files of weights, made-up scores, no waiting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch


def series(made, tmp_path: Path, scores: Mapping[str, Sequence[float]], networks: Sequence[str]) -> Path:
    """A task of tsai, of the built-in diatoms.

    Args:
        made: A `Fabricated` study.
        tmp_path: Where the diatoms are drawn.
        scores: By model's folder, one a seed.
        networks: tsai's.
    """
    from dynconv_plugins import datasets
    from dynconv_plugins.study import hosts

    root = datasets.diatoms.make(tmp_path / "diatoms", classes=3, train=4, test=2) / "UCR"
    data = {"name": "Diatoms", "path": str(root), "train": 12, "valid": 0, "test": 6, "classes": 3, "unit": "series"}
    data |= {"real": False, "options": {"length": 176, "variables": 1}}
    made.task("series", "tsai", scores, networks=networks, data=data, where=None, arguments={})
    torch.manual_seed(0)
    for folder in sorted(made.root.glob("series/*/seed0")):
        record = json.loads((folder / "cell.json").read_text())
        (folder / "run").mkdir()
        torch.save(hosts.get("tsai").build(record).state_dict(), folder / "run" / "model.pth")
    return made.root


def masks(out: Path, networks: Sequence[str], models: Sequence[str]) -> Path:
    """A task of mmseg, of the built-in diatoms at 64 pixels.

    Args:
        out: The study's folder.
        networks: Heads.
        models: Operators.
    """
    from dynconv_plugins.study import cells, hosts, plan, schedule

    task = {"host": "mmseg", "data": {"name": "diatoms", "classes": 2, "train": 6, "test": 3, "holdout": 0.2}}
    task |= {"networks": list(networks), "models": list(models), "recipe": "study"}
    task |= {"options": {"pixels": 64, "epochs": 1, "batch_size": 2}}
    raw = plan.parse({"tasks": {"masks": task}}, "heads")
    made = schedule.make(raw, out, {}, lambda line: None)
    host = hosts.get("mmseg")
    for cell in made.cells:
        (cell.folder / "run").mkdir()
        host.settle(cell.folder, cells.read(cell.folder))
        weights = host.build(cells.read(cell.folder), cell.folder).state_dict()
        torch.save({"state_dict": weights}, cell.folder / "run" / "best_mIoU_epoch_1.pth")
        cells.update(cell.folder, status="done")
        cells.write(cell.folder, {"score": 0.1}, cells.METRICS)
    return out
