"""Segmentation: ``mim train mmsegmentation``, on VOC 2012 or the built-in diatoms."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmseg_configs import reading
from mmseg_configs.recipes import batch, compose, quietly

from ...demo.segmentation import mim
from ...errors import UserError
from ..cells import RUN, Cell
from .common import Data, Sample, per_process, settings
from .masks import OPTIONS
from .masks import prepare as prepare  # one of what `hosts` asks for

SCORED_BY_TRAINER = False
CONFIG = "config.py"


def recipe(name: str) -> dict[str, Any]:
    """What the recipe says, for a round number of epochs and pixels: how it is written does not count."""
    from mmseg_configs import recipes

    if name not in recipes.names():
        raise UserError(f"mmseg has no recipe {name}: {', '.join(recipes.names())}")
    module = getattr(recipes, name)
    constants = {key: value for key, value in vars(module).items() if key.isupper()}
    return {"settings": module.settings(100), "augmentation": module.augmentation(100), **constants}


def command(cell: Cell, data: Data, folder: Path) -> tuple[str, ...]:
    words = (*mim(), "train", "mmsegmentation", str(folder / CONFIG), "--gpus", "0" if not _cuda() else "1")
    return (*words, "--work-dir", str(folder / RUN), "--resume")


def _cuda() -> bool:
    return torch.cuda.is_available()


def check(command: Sequence[str]) -> None:
    """Nothing: `prepare` has read the options."""


def settle(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the config, one file with everything in it; of a trained cell it only says where the data lie now."""
    options = settings(record["options"], OPTIONS, "options")
    start = None if record.get("trained") else options["backbone_checkpoint"]
    data = Path(record["data"]["path"])
    with quietly():
        lists = {f"{part}_list": str((data.parent / f"{part}.txt").resolve()) for part in ("train", "valid", "test")}
        compose(
            folder / CONFIG,
            head=record["network"],
            operator=record["operator"],
            arguments=dict(record["arguments"]),
            where=record["where"],
            recipe=record["recipe"],
            data_root=data.resolve() / "VOCdevkit" / "VOC2012",
            pixels=options["pixels"],
            epochs=options["epochs"],
            batch_size=per_process(options["batch_size"] or batch(record["recipe"]), record["processes"]),
            processes=record["processes"],
            backbone_checkpoint=start,
            seed=record["seed"],
            **lists,
        )


def _epochs(folder: Path) -> dict[int, dict[str, float]]:
    """What mmengine has logged, by epoch: the last loss of each, and the mIoU of its validation part."""
    rows: dict[int, dict[str, float]] = {}
    # A run that was resumed has a file for each start; the later one counts where both have an epoch.
    for path in sorted((folder / RUN).glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            try:
                values = json.loads(line)
            except ValueError:
                continue  # cut off by a full disk or a kill
            # Training counts steps by iteration and says the epoch; validation counts by epoch.
            row = rows.setdefault(values.get("epoch", values["step"]), {})
            row.update({k: values[k] for k in ("loss", "mIoU") if k in values})
    return dict(sorted(rows.items()))


def progress(folder: Path, record: Mapping[str, Any]) -> tuple[float, float, str]:
    rows = _epochs(folder)
    total = float(_config(folder).train_cfg.max_epochs)
    losses = [r["loss"] for r in rows.values() if "loss" in r]
    return max(rows, default=0), total, f"loss {losses[-1]:.3f}" if losses else ""


def curve(folder: Path) -> dict[str, Any]:
    rows = _epochs(folder)
    scores = [r["mIoU"] / 100 if "mIoU" in r else None for r in rows.values()]
    losses = {"train_loss": [r.get("loss") for r in rows.values()], "valid_loss": [None] * len(rows)}
    return {"unit": "epoch", "steps": list(rows), **losses, "valid_score": scores}


def _config(folder: Path):
    from mmengine.config import Config

    return Config.fromfile(folder / CONFIG)


def build(record: Mapping[str, Any], folder: Path | None = None) -> nn.Module:
    """The segmentor; without its folder it is composed in a temporary one."""
    with quietly(), tempfile.TemporaryDirectory() as scratch:
        from mmengine.registry import init_default_scope
        from mmseg.registry import MODELS

        import mmseg_configs.register  # noqa: F401 - registers what the configuration names

        if folder is None:
            settle(Path(scratch), record)
        init_default_scope("mmseg")
        config = _config(folder or Path(scratch)).model
        config.backbone.checkpoint = None  # the weights come from the run
        return MODELS.build(config).eval()


def kept(folder: Path) -> Path:
    """The checkpoint that counts: the best of the validation part where the recipe keeps one, else the last."""
    run = folder / RUN
    best = sorted(run.glob("best_*.pth"), key=lambda p: p.stat().st_mtime)
    if best:
        return best[-1]
    return run / (run / "last_checkpoint").read_text().strip().rpartition("/")[2]


def load(folder: Path) -> nn.Module:
    """The segmentor with the kept weights; where they were averaged, a checkpoint holds the average as its weights."""
    model = build(json.loads((folder / "cell.json").read_text()), folder)
    model.load_state_dict(reading.checkpoint(kept(folder))["state_dict"])
    return model.eval()


def amount(record: Mapping[str, Any]) -> tuple[int, int]:
    """Batch size and number of training steps."""
    with tempfile.TemporaryDirectory() as scratch:
        settle(Path(scratch), record)
        config = _config(Path(scratch))
        batch = config.train_dataloader.batch_size
        each = max(1, record["data"]["train"] // batch)
        return batch, config.train_cfg.max_epochs * each


def example(record: Mapping[str, Any], batch: int) -> torch.Tensor:
    pixels = record["data"]["options"]["pixels"]
    return torch.randn(batch, 3, pixels, pixels)


def _tested(folder: Path):
    with quietly():
        from mmengine.registry import init_default_scope
        from mmseg.registry import DATASETS

        import mmseg_configs.register  # noqa: F401

        init_default_scope("mmseg")
        return DATASETS.build(_config(folder).test_dataloader.dataset)


def _names(dataset, record: Mapping[str, Any]) -> list[str]:
    """Class names by label; diatoms borrow VOC's numbers, not its classes."""
    names = list(dataset.metainfo["classes"])
    return names if record["data"]["real"] else names[:1] + [f"diatom {i}" for i in range(1, len(names))]


def metrics(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """mIoU over the classes that occur, as mmseg's IoUMetric counts it, and the IoU of each."""
    from mmengine.dataset import pseudo_collate
    from mmseg.evaluation.metrics import IoUMetric

    model, dataset = load(folder), _tested(folder)
    names = _names(dataset, record)
    areas = torch.zeros(4, len(names), dtype=torch.float64)
    with torch.inference_mode():
        for i in range(len(dataset)):
            done = model.test_step(pseudo_collate([dataset[i]]))[0]
            pair = done.pred_sem_seg.data.squeeze(), done.gt_sem_seg.data.squeeze()
            areas += torch.stack(IoUMetric.intersect_and_union(*pair, len(names), 255)).double()
    intersection, union, _, truth = areas
    # A class that is neither shown nor predicted has no IoU: mmseg leaves it out of the mean as well.
    iou = {n: float(intersection[i] / union[i]) if union[i] > 0 else None for i, n in enumerate(names)}
    made = curve(folder)
    return {
        "score": float(np.mean([v for v in iou.values() if v is not None])),
        "pixel_accuracy": float(intersection.sum() / truth.sum()),
        # All pixels called the most frequent class: its share of them, and that divided by the number of classes.
        "constant_pixels": float(truth.max() / truth.sum()),
        "constant_score": float(truth.max() / truth.sum() / (truth > 0).sum()),
        "loss": None,
        "per_class": iou,
        "epochs": made["steps"][-1] if made["steps"] else 0,
        "kept_epoch": int(re.search(r"(\d+)$", kept(folder).stem)[1]),
        "curve": made,
        "predictions": None,
    }


def _lightened(palette: np.ndarray) -> np.ndarray:
    """Colours ``[classes, 3]`` that can be told from the background's black, which VOC's darkest cannot."""
    return np.concatenate([palette[:1], (80 + palette[1:] * (175 / 255)).round().astype(np.uint8)])


def samples(folder: Path, n: int) -> list[Sample]:
    """Test images at even distances."""
    from mmengine.dataset import pseudo_collate

    record, dataset = json.loads((folder / "cell.json").read_text()), _tested(folder)
    pixels = record["data"]["options"]["pixels"]
    palette = _lightened(np.array(dataset.metainfo["palette"], np.uint8))
    names, made = tuple(_names(dataset, record)), []
    for k, index in enumerate(np.linspace(0, len(dataset) - 1, min(n, len(dataset))).round().astype(int)):
        sample = dataset[int(index)]
        truth = sample["data_samples"].gt_sem_seg.data[0].numpy()
        square = reading.image(sample["inputs"], (pixels, pixels))
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
        x = ((torch.from_numpy(square).permute(2, 0, 1).float() - mean) / std)[None]

        def predict(model: nn.Module, index: int = int(index)) -> np.ndarray:
            with torch.inference_mode():
                done = model.test_step(pseudo_collate([dataset[index]]))[0]
            return done.pred_sem_seg.data[0].numpy()

        image = reading.image(sample["inputs"], truth.shape)
        made.append(
            Sample(x, image, f"sample {k + 1}", truth, predict, lambda labels: reading.colours(labels, palette), names)
        )
    return made
