"""Trains every operator in every host, shortly and on real data, each by the host's own command line.

    python -m benchmarks.hosts --data data --out runs/hosts

It shows that they run and learn, and nothing about which is better: one short run each. The untrained score is that of
the static twin with its initial weights. What has been run before is not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import dynconv_plugins as dc
from dynconv_plugins import datasets
from dynconv_plugins.demo import runner
from dynconv_plugins.demo.images import PIXELS, Images
from dynconv_plugins.demo.records import Cell, Data
from dynconv_plugins.demo.segmentation import Segmentation
from dynconv_plugins.demo.series import Series
from dynconv_plugins.demo.sizes import Size
from dynconv_plugins.errors import UserError, run_cli

SIZE = Size(
    classes=10,
    train=60,
    test=50,
    epochs=3,
    batch=32,
    mask_train=48,
    mask_test=24,
    iterations=18,
    series_epochs=10,
    seeds=1,
)
HOSTS = {"images": Images, "segmentation": partial(Segmentation, validations=1), "series": Series}
NEEDED = {"images": "tiny-imagenet", "segmentation": "voc2012", "series": "ucr"}


def untrained(host, cell: Cell, data: Data) -> float:
    """The static twin's score on the test set with its initial weights."""
    torch.manual_seed(0)
    if isinstance(host, Segmentation):
        return _untrained_segmentation(host, cell)
    if isinstance(host, Images):
        import timm

        model = timm.create_model(cell.model, num_classes=data.classes).eval()
        files = host._files(data.path / "val")
        names = sorted({path.parent.name for path in files})
        labels = np.array([names.index(path.parent.name) for path in files])
        mean, std = (np.array(model.default_cfg[key], dtype=np.float32) for key in ("mean", "std"))
        inputs = np.stack([(host._pixels(path) - mean) / std for path in files]).transpose(0, 3, 1, 2)
        assert inputs.shape[2:] == (PIXELS, PIXELS)
    else:
        from tsai_models.archs import ARCHS, build
        from tsai_models.data import standardised

        X, y, (_, test) = datasets.ucr.load(data.path, host.name)
        model = build(ARCHS[host.arch].twin, 1, data.classes, X.shape[2]).eval()
        inputs, labels = standardised(X[test]), np.unique(y, return_inverse=True)[1][test]
    with torch.inference_mode():
        found = [model(torch.from_numpy(part).float()).argmax(1) for part in np.array_split(inputs, 10)]
    return float((torch.cat(found).numpy() == labels).mean())


def _untrained_segmentation(host: Segmentation, cell: Cell) -> float:
    from mmengine.runner import Runner

    config = host._config(cell)
    config.work_dir = str(cell.folder / "untrained")
    return Runner.from_cfg(config).test()["mIoU"] / 100


def row(host, cell: Cell, errors: dict[str, str]) -> tuple[str, str, str, bool]:
    """First and last training loss, the score, and whether the loss fell."""
    if cell.key in errors:
        return "failed", errors[cell.key], "", False
    losses = [value for value in host.curve(cell).train_loss if not np.isnan(value)]
    return f"{losses[0]:.3f}", f"{losses[-1]:.3f}", f"{host.score(cell):.1%}", losses[-1] < losses[0]


def mask_rate(cell: Cell) -> str:
    """The last mask rate that the host has logged, for `hard`; empty for the others."""
    run = cell.folder / "run"
    rates: list[float] = []
    for path in (*run.glob("summary.csv"), *run.glob("history.csv")):
        with open(path, newline="") as f:
            rates += [float(line["mask_rate"]) for line in csv.DictReader(f) if line.get("mask_rate")]
    for path in run.glob("*/vis_data/scalars.json"):
        values = (json.loads(line) for line in path.read_text().splitlines())
        rates += [v["mask_rate"] for v in values if "mask_rate" in v]
    return f"{rates[-1]:.2f}" if rates else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hosts", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds Tiny ImageNet, VOC 2012 and UCR")
    parser.add_argument("--out", type=Path, default=Path("runs/hosts"))
    parser.add_argument("--tasks", nargs="+", choices=HOSTS, default=list(HOSTS))
    parser.add_argument("--operators", nargs="+", metavar="NAME", default=dc.registry.names())
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    for name in args.operators:
        dc.registry.get(name)
    found = datasets.find(args.data)
    for task in args.tasks:
        if NEEDED[task] not in found:
            raise UserError(f"no {NEEDED[task]} under {args.data}: this table is about real data")
    console, failed = Console(width=130), 0
    table = Table(title="every operator in every host: one short run each")
    for column in ("task", "operator", "loss, first", "loss, last", "score", "static, untrained", "mask rate", ""):
        table.add_column(column, justify="left" if column in ("task", "operator") else "right")
    for task in args.tasks:
        host = HOSTS[task](args.operators)
        data = host.prepare(found, args.out / "data", SIZE)
        cells = host.cells(data, args.out / task, SIZE)
        _, errors = runner.run_all(cells, host.curve, console, args.threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = untrained(host, cells[0], data)
        for cell in cells:
            first, last, score, fell = row(host, cell, errors)
            good = fell and host.score(cell) > before
            failed += not good
            values = (first, last, score, f"{before:.1%}", mask_rate(cell), "" if good else "NO GAIN")
            table.add_row(f"{task}: {data.name}" if cell is cells[0] else "", cell.operator, *values)
        table.add_section()
    console.print(table)
    total = len(args.tasks) * (len(args.operators) + 1)
    console.print(
        f"{failed} of {total} runs: the loss has not fallen, or the score is not above the untrained network's",
        highlight=False,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    run_cli(main)
