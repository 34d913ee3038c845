"""What is looked at: a network with its weights and one input, from a name, a checkpoint or a study's cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints.differences import compare, with_own_counter
from ..convert import operators_in
from ..errors import UserError

TOP = 5


@dataclass
class Subject:
    """A network and a sample.

    Attributes:
        model: In eval mode, on the CPU.
        x: The sample as the network takes it, ``[1, ...]``.
        shown: The same for the eye: ``[H, W, 3]`` in 0..1, or a series ``[variables, steps]``.
        title: Says which network and which input.
        weights: Says where the weights are from.
        names: The classes, where they are known.
        says: What the numbers beside the classes are.
    """

    model: nn.Module
    x: Tensor
    shown: np.ndarray
    title: str
    weights: str
    names: list[str] = field(default_factory=list)
    says: str = "prediction"

    def top(self, y: Any) -> list[tuple[str, float]]:
        """The likeliest classes for the output ``[1, classes]``; for ``[1, classes, H, W]`` those of most pixels.

        Of several outputs the first is meant: the others are there for losses of their own.

        Raises:
            UserError: If it is no tensor.
        """
        while isinstance(y, (tuple, list)) and y:
            y = y[0]
        if not isinstance(y, Tensor):
            raise UserError(f"{self.title}: the network returns no scores of classes but a {type(y).__name__}")
        if y.ndim == 4:
            found = y[0].argmax(0).flatten().bincount(minlength=y.shape[1]).float()
            shares = found / found.sum()
        else:
            shares = y[0].float().softmax(0)
        values, indices = shares.topk(min(TOP, len(shares)))
        return [(self._called(i), v) for i, v in zip(indices.tolist(), values.tolist(), strict=True) if v > 0]

    def _called(self, index: int) -> str:
        return self.names[index] if index < len(self.names) else f"class {index}"


def must_be_dynamic(model: nn.Module, name: str, hint: str = "") -> None:
    """Raises a `UserError` if there is nothing to explain."""
    if not operators_in(model):
        raise UserError(f"{name} has no dynamic convolution{hint}")


def fill(model: nn.Module, weights: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Loads a state dict into the network it was made by.

    Raises:
        UserError: If a key is missing, unknown or of another shape.
    """
    own = model.state_dict()
    weights = with_own_counter(own, weights)
    missing, unknown, shapes = compare(own, weights)
    said = [
        f"{len(keys)} {what} (first: {next(iter(keys))})"
        for keys, what in ((missing, "keys missing"), (unknown, "unknown"), (shapes, "of another shape"))
        if keys
    ]
    if said:
        raise UserError(f"checkpoint {path} does not fit {name}: {', '.join(said)}")
    model.load_state_dict(weights)


def cell(folder: Path) -> tuple[dict[str, Any], nn.Module, list[str]]:
    """A study's cell: its record, its network with the weights that count, its classes.

    Raises:
        UserError: If the folder is no cell or its training has not come to weights.
    """
    from ..study.hosts import get

    try:
        record = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
        host, scores = record["host"], folder / "metrics.json"
        names = list((json.loads(scores.read_text()).get("per_class") or {}) if scores.is_file() else {})
        classes = record["data"]["classes"]
    except FileNotFoundError:
        raise UserError(f"{folder} is a folder without cell.json: give a checkpoint, or a cell of a study") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / 'cell.json'} or metrics.json is damaged, or not of a study") from None
    try:
        model = get(host).load(folder)
    except UserError:
        raise
    except Exception as e:  # files of the host that are missing or are not what they should be
        raise UserError(f"no weights in {folder}: {' '.join(str(e).split())[:200] or type(e).__name__}") from None
    # Only where all classes were scored do positions in the table tell the class.
    return record, model.eval(), names if len(names) == classes else []


def picture(path: Path):
    """An RGB image.

    Raises:
        UserError: If there is none, or it cannot be decoded.
    """
    from PIL import Image

    if not path.is_file():
        raise UserError(f"no image {path}")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise UserError(f"{path} cannot be read as an image: {' '.join(str(e).split())}") from None


def denormalised(x: Tensor, mean: Any, std: Any) -> np.ndarray:
    """``[1, C, H, W]`` as ``[H, W, 3]`` in 0..1."""
    mean, std = (torch.as_tensor(values).view(-1, 1, 1).float() for values in (mean, std))
    image = (x[0] * std + mean).clamp(0, 1).permute(1, 2, 0)
    return image.expand(-1, -1, 3).numpy()
