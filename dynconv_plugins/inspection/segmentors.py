"""Images and the networks of mmseg that look at them: by the name of a config, a config file, or a study's cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import UserError, require
from .subject import Subject, fill, must_be_dynamic

SAYS = "prediction, shares of the pixels"


def named(name: str) -> bool:
    """Whether this is the name of one of our configs, or a config file."""
    import mmseg_configs

    return name.endswith(".py") or name in mmseg_configs.names()


def subject(
    name: str, shot, image: Path, checkpoint: Path | None, arguments: Mapping[str, Any], pixels: int | None
) -> Subject:
    """A network of a config and an image, made square.

    Args:
        name: What `named` holds of.
        shot: The image, decoded.
        image: Its file, for the title.
        checkpoint: Of mmengine or a plain state dict; None: as initialised.
        arguments: Must be empty: a config says what the network is.
        pixels: Side of the input; None: the config's.

    Raises:
        UserError: If anything is missing, damaged or does not fit; one line.
    """
    if arguments:
        raise UserError(f"{name} is as its config says: leave --operator-arg out")
    require("mmseg", "mmseg")
    cfg = config(name)
    model = segmentor(cfg, name)
    must_be_dynamic(model, name)
    if checkpoint is not None:
        from mmseg_configs import weights

        fill(model, weights.stored(checkpoint), checkpoint, name)
    x, shown = seen(model, shot, pixels or _side(cfg, name))
    said = f"weights: {checkpoint}" if checkpoint else "weights: random, as initialised"
    return Subject(model, x, shown, f"{Path(name).stem}, {image.name}", said, _classes(cfg, name), SAYS)


def config(name: str):
    """A config of ours by name, or any by its file.

    Raises:
        UserError: If it is not there, or none of mmsegmentation.
    """
    import mmseg_configs
    from mmseg_configs.recipes import quietly

    if name.endswith(".py") and not Path(name).is_file():
        raise UserError(f"no config {name}")
    path = name if name.endswith(".py") else mmseg_configs.path(name)
    try:
        with quietly():
            from mmengine.config import Config

            cfg = Config.fromfile(path)
            cfg.model  # noqa: B018 - a file without one is no config of a network
    except UserError:
        raise
    except Exception as e:  # whatever a file of Python may end in
        raise UserError(f"{name} is no config of mmsegmentation: {' '.join(str(e).split())}") from None
    return cfg


def segmentor(cfg, name: str) -> nn.Module:
    """The network of a config, in eval mode, as it is initialised; the same every time."""
    from mmseg_configs.recipes import quietly

    with quietly():
        from mmengine.registry import init_default_scope
        from mmseg.registry import MODELS

        import mmseg_configs.register  # noqa: F401 - our components

        init_default_scope("mmseg")
        torch.manual_seed(0)
        try:
            return MODELS.build(cfg.model).eval()
        except UserError:
            raise
        except Exception as e:  # whatever a component makes of its arguments
            raise UserError(f"cannot make {name}: {' '.join(str(e).split())}") from None


def _side(cfg, name: str) -> int:
    size = (cfg.model.get("data_preprocessor") or {}).get("size") or cfg.get("crop_size")
    if not size:
        raise UserError(f"{name} does not say how large its images are: give --input-size")
    return int(min(size))


def _classes(cfg, name: str) -> list[str]:
    """The names of its data set's classes, where that is one of mmseg's own with as many as the network has."""
    from mmseg.registry import DATASETS

    if "_diatoms-" in Path(name).stem:
        return []  # shapes in VOC's layout, under VOC's labels
    kind = ((cfg.get("test_dataloader") or {}).get("dataset") or {}).get("type")
    names = getattr(DATASETS.get(kind), "METAINFO", {}).get("classes", ()) if isinstance(kind, str) else ()
    heads = cfg.model.decode_head
    last = heads[-1] if isinstance(heads, list) else heads  # of a cascade the one whose output counts
    return list(names) if len(names) == last.get("num_classes") else []


def seen(model: nn.Module, shot, side: int) -> tuple[torch.Tensor, np.ndarray]:
    """An image as the network takes it, ``[1, 3, side, side]``, and as the eye does, in 0..1."""
    from mmseg.structures import SegDataSample

    array = np.array(shot.resize((side, side)))
    # As mmseg loads it, in BGR; a preprocessor that pads writes down how much.
    loaded = {"inputs": torch.from_numpy(array).flip(2).permute(2, 0, 1)[None], "data_samples": [SegDataSample()]}
    return model.data_preprocessor(loaded)["inputs"].float(), array.astype(np.float32) / 255
