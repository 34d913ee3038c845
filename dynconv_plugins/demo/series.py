"""Time series: ``python -m tsai_models train``."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dynconv_plugins import datasets
from dynconv_plugins.demo import attention
from dynconv_plugins.demo.figures import Album
from dynconv_plugins.demo.host import PYTHON
from dynconv_plugins.demo.page import Section
from dynconv_plugins.demo.records import Cell, Curve, Data
from dynconv_plugins.demo.sizes import Size


class Series:
    """tsai's FCN and its dynamic versions on Adiac, or on the diatoms' contours.

    Args:
        operators: Names in the registry, to train beside the static twin.
    """

    task, unit, score_name = "series", "series", "accuracy"
    arch = "ODConvFCN"

    def __init__(self, operators: Sequence[str] = ("odconv", "odconv4x")) -> None:
        self.operators = operators

    def prepare(self, found: Mapping[str, Path], folder: Path, size: Size) -> Data:
        root = Path(found["ucr"]) if "ucr" in found else folder / "diatoms" / "UCR"
        names = sorted(p.name for p in root.iterdir() if any(p.glob("*_TRAIN.ts*")))
        self.name = "Adiac" if "Adiac" in names else names[0]
        _, y, (train, test) = datasets.ucr.load(root, self.name)
        return Data(self.name, root, len(train), len(test), len(np.unique(y)))

    def cells(self, data: Data, folder: Path, size: Size) -> list[Cell]:
        common = (PYTHON, "-m", "tsai_models", "train", "--arch", self.arch, "--dataset", self.name)
        made = []
        for operator in ("static", *self.operators):
            out = folder / operator
            extra = {"static": ("--static",), "odconv": ()}.get(operator, ("--operator", operator))
            command = (*common, *extra, "--data", str(data.path), "--epochs", str(size.series_epochs))
            command += ("--batch-size", "16", "--seeds", str(size.seeds), "--device", "cpu", "--out", str(out / "run"))
            model = "FCN" if operator == "static" else self.arch
            made.append(Cell(self.task, operator, model, out, command, size.series_epochs, "epoch"))
        return made

    def curve(self, cell: Cell) -> Curve:
        """The mean over the seeds that are finished: tsai's history is written once a run is complete."""
        path = cell.folder / "run" / "history.csv"
        if not path.is_file():
            return Curve()
        by_epoch: dict[int, list[dict[str, str]]] = {}
        with open(path, newline="") as f:
            for line in csv.DictReader(f):
                by_epoch.setdefault(int(line["epoch"]), []).append(line)
        curve = Curve()
        for epoch, lines in sorted(by_epoch.items()):
            means = [float(np.mean([float(v[k]) for v in lines])) for k in ("train_loss", "valid_loss", "accuracy")]
            curve.add(epoch, *means)
        return curve

    def score(self, cell: Cell) -> float:
        return float(json.loads((cell.folder / "run" / "results.json").read_text())["mean"])

    def load(self, cell: Cell, data: Data) -> tuple[nn.Module, torch.Tensor]:
        from tsai_models.archs import ARCHS, build
        from tsai_models.data import standardised

        entry = ARCHS[self.arch]
        operator = {} if cell.operator == "static" else {"operator": cell.operator}
        X, _, _ = datasets.ucr.load(data.path, self.name)
        model = build(entry.twin if cell.operator == "static" else entry.cls, 1, data.classes, X.shape[2], **operator)
        model.load_state_dict(torch.load(cell.folder / "run" / "model.pth", map_location="cpu", weights_only=True))
        return model.eval(), torch.from_numpy(standardised(X[:1]))

    def section(self, models: Mapping[str, nn.Module], cells: list[Cell], data: Data, album: Album) -> Section:
        section = Section(
            self.task,
            "Time series",
            "tsai",
            f"tsai's FCN on {self.name}, official split, each series standardised by itself. The first block reads the "
            "raw series and stays static: the mean over time, from which attention is computed, is zero there.",
        )
        X, y, (_, test) = datasets.ucr.load(data.path, self.name)
        chosen, labels = attention.by_class([y[i] for i in test])
        from tsai_models.data import standardised

        inputs = standardised(X[[test[i] for i in chosen]])
        for operator, model in models.items():
            if operator != "static":
                section.attention += attention.pictures(
                    model, operator, torch.from_numpy(inputs), list(inputs[:, 0]), labels, album, self.task
                )
        return section
