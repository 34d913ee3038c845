"""Scores from what a trainer has left, counted from the definitions: none of the study's own code runs here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

SIZE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def stored(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=False)


@torch.inference_mode()
def classified(
    model: nn.Module, weights: dict[str, Tensor], folder: Path, mean: tuple = MEAN, std: tuple = STD
) -> tuple[np.ndarray, Tensor]:
    """Classes and logits of the images in ``folder/<class>/``, in the order of their names."""
    model.load_state_dict(weights)
    truth, logits = [], []
    for number, part in enumerate(sorted(folder.iterdir())):
        for path in sorted(part.iterdir()):
            image = Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            x = (torch.from_numpy(np.array(image)) / 255 - torch.tensor(mean)) / torch.tensor(std)
            logits.append(model.eval()(x.permute(2, 0, 1)[None]))
            truth.append(number)
    return np.array(truth), torch.cat(logits)


@torch.inference_mode()
def segmented(config_file: Path, checkpoint: Path, voc: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """True and predicted labels ``[H, W]`` of the test images, with the weights in `checkpoint`."""
    from mmengine.config import Config
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS, MODELS

    import mmseg_configs.register  # noqa: F401 - registers what the configuration names

    init_default_scope("mmseg")
    config = Config.fromfile(config_file)
    model = MODELS.build(config.model).eval()
    model.load_state_dict(stored(checkpoint)["state_dict"])
    pairs = []
    for sample in DATASETS.build(config.test_dataloader.dataset):
        found = model.test_step(pseudo_collate([sample]))[0].pred_sem_seg.data[0].numpy()
        name = Path(sample["data_samples"].img_path).stem
        pairs.append((np.array(Image.open(voc / "SegmentationClass" / f"{name}.png")), found))
    return pairs


def overlaps(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float | list[float]]:
    """What ``metrics.json`` says of them under the same names, and the IoU of the classes that occur."""
    truth, found = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    truth, found = truth[truth != 255], found[truth != 255]
    present, counts = np.unique(truth, return_counts=True)
    classes = np.union1d(present, found)
    ious = [((truth == c) & (found == c)).sum() / ((truth == c) | (found == c)).sum() for c in classes]
    return {
        "score": np.mean(ious),
        "ious": ious,
        "pixel_accuracy": (truth == found).mean(),
        "constant_pixels": counts.max() / len(truth),
        "constant_score": counts.max() / len(truth) / len(present),
    }
