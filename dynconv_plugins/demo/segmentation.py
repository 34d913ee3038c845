"""Segmentation: ``mim train mmsegmentation``."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dynconv_plugins import datasets
from dynconv_plugins.demo import attention, subset
from dynconv_plugins.demo.figures import Album
from dynconv_plugins.demo.host import only
from dynconv_plugins.demo.page import Masks, Section
from dynconv_plugins.demo.records import OPERATORS, Cell, Curve, Data
from dynconv_plugins.demo.sizes import Size
from mmseg_configs.reading import checkpoint, colours, image

SAMPLES = 4
VALIDATIONS = 3


def mim() -> tuple[str, ...]:
    """The command: an environment has it beside its python, a system's python may have it anywhere."""
    beside = Path(sys.executable).with_name("mim")
    return (str(beside),) if beside.is_file() else (sys.executable, "-m", "mim")


class Segmentation:
    """FPN on ResNet-18, on VOC 2012 at 128 pixels or on the diatoms at 64.

    Args:
        operators: Names in the registry, to train beside the static twin.
        validations: How often a training is interrupted for a validation.
    """

    task, unit, score_name = "segmentation", "images", "mIoU"

    def __init__(self, operators: Sequence[str] = ("odconv",), validations: int = VALIDATIONS) -> None:
        self.operators, self.validations = operators, validations

    def prepare(self, found: Mapping[str, Path], folder: Path, size: Size) -> Data:
        real = "voc2012" in found
        source = Path(found["voc2012"]) if real else folder / "diatoms" / "VOCdevkit" / "VOC2012"
        part = subset.voc2012(source, folder / "masks-part", size.mask_train, size.mask_test)
        datasets.voc2012.prepare(part, folder / "masks")
        self.suffix, self.pixels = ("voc12-128x128", 128) if real else ("diatoms-64x64", 64)
        lists = folder / "masks" / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
        counts = [len((lists / f"{split}.txt").read_text().split()) for split in ("train", "val")]
        name = f"{'VOC 2012' if real else 'diatoms'}, {self.pixels} px"
        shapes = folder / "diatoms" / "tiny-imagenet-200" / "wnids.txt"
        classes = 20 if real else len(shapes.read_text().split())
        return Data(name, folder / "masks", *counts, classes + 1)

    def cells(self, data: Data, folder: Path, size: Size) -> list[Cell]:
        import mmseg_configs

        n = size.iterations
        each = max(1, n // self.validations)
        options = f"train_cfg.max_iters={n} train_cfg.val_interval={each} param_scheduler.0.end={n} "
        options += f"default_hooks.checkpoint.interval={n} default_hooks.logger.interval={max(1, each // 6)} "
        options += "train_dataloader.num_workers=0 train_dataloader.persistent_workers=False "
        options += "val_dataloader.num_workers=0 val_dataloader.persistent_workers=False"
        made = []
        for operator in ("static", *self.operators):
            out = folder / operator
            model = "resnet18" if operator == "static" else f"resnet18-{operator}"
            config = Path(mmseg_configs.path(f"fpn_{model}_{self.suffix}.py"))
            shown = os.path.relpath(config) if config.is_relative_to(Path.cwd()) else str(config)
            command = (*mim(), "train", "mmsegmentation", shown, "--gpus", "0", "--work-dir", str(out / "run"))
            command += ("--cfg-options", *options.split())
            if "TemperatureHook" in config.read_text():
                command += (f"default_hooks.temperature.iters={n // 2}",)
            env = (("DYNCONV_DATA", str(data.path)),)
            inputs = subset.fingerprint(data.path)
            made.append(Cell(self.task, operator, f"FPN {model}", out, command, n, "iteration", env, inputs))
        return made

    def curve(self, cell: Cell) -> Curve:
        curve = Curve()
        try:
            path = only(cell.folder / "run", "*/vis_data/scalars.json")
        except FileNotFoundError:
            return curve
        for line in path.read_text().splitlines():
            values = json.loads(line)
            if "mIoU" in values:
                curve.add(values["step"], None, None, values["mIoU"] / 100)
            else:
                curve.add(values["step"], values.get("loss"), None, None)
        return curve

    def score(self, cell: Cell) -> float:
        last = self.curve(cell).last_score()
        if last is None:
            raise ValueError(f"no mIoU in {cell.folder / 'run'}")
        return last

    def load(self, cell: Cell, data: Data) -> tuple[nn.Module, torch.Tensor]:
        from mmengine.registry import init_default_scope
        from mmseg.registry import MODELS as BUILDERS

        config = self._config(cell)
        init_default_scope("mmseg")
        model = BUILDERS.build(config.model)
        model.load_state_dict(self._weights(cell))
        return model.eval(), torch.zeros(1, 3, self.pixels, self.pixels)

    def section(self, models: Mapping[str, nn.Module], cells: list[Cell], data: Data, album: Album) -> Section:
        section = Section(
            self.task,
            "Segmentation",
            "mmsegmentation",
            f"mmsegmentation's FPN head on timm's ResNet-18 from scratch, on {data.name}. No pretrained weights and "
            "little training: what counts here is that it runs and learns, not the level.",
        )
        if not models:
            return section
        from mmengine.dataset import pseudo_collate
        from mmseg.registry import DATASETS

        dataset = DATASETS.build(self._config(cells[0]).val_dataloader.dataset)
        palette, classes = np.array(dataset.metainfo["palette"], np.uint8), list(dataset.metainfo["classes"])
        if "diatoms" in data.name:
            # Diatoms borrow VOC's label numbers, not its classes.
            classes[1:] = [f"diatom {i}" for i in range(1, len(classes))]
        picks = np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).round().astype(int)
        images, seen = [], set()
        for k, index in enumerate(picks):
            sample = dataset[int(index)]
            truth = sample["data_samples"].gt_sem_seg.data[0].numpy()
            # Files of one sample's panels have one size: that of the mask.
            panels = {"input": image(sample["inputs"], truth.shape), "truth": colours(truth, palette)}
            seen |= set(np.unique(truth[truth != 255]).tolist())
            for operator, model in models.items():
                with torch.inference_mode():
                    done = model.test_step(pseudo_collate([dataset[int(index)]]))[0]
                labels = done.pred_sem_seg.data[0].numpy()
                seen |= set(np.unique(labels).tolist())
                panels[operator] = colours(labels, palette)
            for what, pixels in panels.items():
                title = OPERATORS.get(what, what)
                source = album.pixels(f"{self.task}-{k}-{what}", pixels)
                images.append({"alt": f"sample {k + 1}: {title}", "src": source})
        heads = ["input", "truth", *(OPERATORS[o] for o in models)]
        legend = [{"name": classes[c], "colour": "#{:02x}{:02x}{:02x}".format(*palette[c])} for c in sorted(seen)]
        legend.append({"name": "not scored", "colour": "#ffffff"})
        section.masks = Masks(heads, images, legend)
        self._attend(section, models, dataset, picks, album)
        return section

    def _attend(self, section, models, dataset, picks, album: Album) -> None:
        inputs, tensors = [], []
        for index in picks:
            square = image(dataset[int(index)]["inputs"], (self.pixels, self.pixels))
            inputs.append(square.astype(np.float32) / 255)
            tensors.append(torch.from_numpy(square).permute(2, 0, 1).float())
        labels = [f"sample {k + 1}" for k in range(len(inputs))]
        for operator, model in models.items():
            if operator != "static":
                means = model.data_preprocessor
                x = (torch.stack(tensors) - means.mean.cpu()) / means.std.cpu()
                made = attention.pictures(model, operator, x, inputs, labels, album, self.task)
                section.attention += made[:1]

    def _config(self, cell: Cell):
        """The configuration that the run itself wrote down, options included."""
        from mmengine.config import Config

        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            # mmcv and mmseg remark on optional parts that are missing
            warnings.simplefilter("ignore")
            import mmseg_configs.register  # noqa: F401 - registers what the configuration names

        return Config.fromfile(only(cell.folder / "run", "fpn_*.py"))

    @staticmethod
    def _weights(cell: Cell) -> dict[str, torch.Tensor]:
        run = cell.folder / "run"
        path = run / (run / "last_checkpoint").read_text().strip().rpartition("/")[2]
        return checkpoint(path)["state_dict"]
