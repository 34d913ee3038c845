"""Images: ``python -m timm_models train``."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dynconv_plugins import datasets
from dynconv_plugins.demo import attention, subset
from dynconv_plugins.demo.figures import Album
from dynconv_plugins.demo.host import PYTHON
from dynconv_plugins.demo.page import Section
from dynconv_plugins.demo.records import Cell, Curve, Data
from dynconv_plugins.demo.sizes import Size

PIXELS = 64


class Images:
    """ResNet-18 at 64 pixels on the first classes of Tiny ImageNet, or on the diatoms.

    With timm's own stem: the small stem would cost eleven times the multiply-adds, more than two cores have in a demo.

    Args:
        operators: Names in the registry, to train beside the static twin.
    """

    task, unit, score_name = "images", "images", "accuracy"

    def __init__(self, operators: Sequence[str] = ("odconv",)) -> None:
        self.operators = operators

    def prepare(self, found: Mapping[str, Path], folder: Path, size: Size) -> Data:
        real = "tiny-imagenet" in found
        source = Path(found["tiny-imagenet"]) if real else folder / "diatoms" / "tiny-imagenet-200"
        part = subset.tiny_imagenet(source, folder / "images-part", size.classes, size.train, size.test)
        path = folder / "images"
        datasets.tiny_imagenet.prepare(part, path)
        train, test = (self._files(path / split) for split in ("train", "val"))
        classes = len({p.parent.name for p in train})
        name = f"Tiny ImageNet, first {classes} classes, {PIXELS} px" if real else f"diatoms, {PIXELS} px"
        return Data(name, path, len(train), len(test), classes)

    def cells(self, data: Data, folder: Path, size: Size) -> list[Cell]:
        steps = f"--epochs {size.epochs} --batch-size {size.batch} --opt adamw --lr 1e-3 --weight-decay 0.02"
        steps += f" --warmup-epochs 0 --input-size 3 {PIXELS} {PIXELS} --crop-pct 1.0 --scale 0.5 1.0"
        steps += f" --temperature-epochs {size.epochs / 2:g} --workers 0 --device cpu --seed 0"
        made = []
        for operator in ("static", *self.operators):
            out = folder / operator
            model = "resnet18" if operator == "static" else f"resnet18_{operator}"
            command = (PYTHON, "-m", "timm_models", "train", str(data.path), "--model", model, *steps.split())
            command += ("--checkpoint-hist", "1", "--output", str(out), "--experiment", "run")
            inputs = subset.fingerprint(data.path)
            made.append(Cell(self.task, operator, model, out, command, size.epochs, "epoch", inputs=inputs))
        return made

    def curve(self, cell: Cell) -> Curve:
        path, curve = cell.folder / "run" / "summary.csv", Curve()
        if path.is_file():
            with open(path, newline="") as f:
                for line in csv.DictReader(f):
                    values = (float(line[k]) for k in ("train_loss", "eval_loss", "eval_top1"))
                    train, valid, top1 = values
                    curve.add(int(line["epoch"]) + 1, train, valid, top1 / 100)
        return curve

    def score(self, cell: Cell) -> float:
        last = self.curve(cell).last_score()
        if last is None:
            raise ValueError(f"no result in {cell.folder / 'run' / 'summary.csv'}")
        return last

    def load(self, cell: Cell, data: Data) -> tuple[nn.Module, torch.Tensor]:
        import timm

        import timm_models  # noqa: F401 - registers the models

        model = timm.create_model(cell.model, num_classes=data.classes)
        # The trainer keeps its arguments beside the weights: plain values in a Namespace.
        with torch.serialization.safe_globals([argparse.Namespace]):
            stored = torch.load(cell.folder / "run" / "last.pth.tar", map_location="cpu", weights_only=True)
        model.load_state_dict(stored["state_dict"])
        return model.eval(), torch.zeros(1, 3, PIXELS, PIXELS)

    def section(self, models: Mapping[str, nn.Module], cells: list[Cell], data: Data, album: Album) -> Section:
        section = Section(
            self.task,
            "Images",
            "timm",
            f"timm's ResNet-18 from scratch at {PIXELS} pixels on {data.name}. In the dynamic twin every convolution "
            "of the residual blocks is dynamic; stem, downsampling and classifier are static.",
        )
        files = self._files(data.path / "val")
        chosen, labels = attention.by_class([p.parent.name for p in files])
        names = self._words(data)
        inputs = [self._pixels(files[i]) for i in chosen]
        for operator, model in models.items():
            if operator != "static":
                mean, std = (torch.tensor(model.default_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
                x = torch.stack([(torch.from_numpy(i).permute(2, 0, 1) - mean) / std for i in inputs])
                shown = [names.get(label, label) for label in labels]
                section.attention += attention.pictures(model, operator, x, inputs, shown, album, self.task)
        return section

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        return sorted(p for p in folder.glob("*/*") if p.suffix.lower() in subset.IMAGES)

    @staticmethod
    def _pixels(path: Path) -> np.ndarray:
        """``[H, W, 3]`` in 0..1."""
        from PIL import Image

        with Image.open(path) as image:
            resized = image.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
            return np.asarray(resized, dtype=np.float32) / 255

    @staticmethod
    def _words(data: Data) -> dict[str, str]:
        """First word of each class's name."""
        path = data.path.parent / "images-part" / "words.txt"
        lines = (line.split("\t") for line in path.read_text().splitlines()) if path.is_file() else ()
        return {line[0]: line[1].split(",")[0] for line in lines if len(line) > 1}
