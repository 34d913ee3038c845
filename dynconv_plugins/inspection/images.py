"""Images and the networks of timm that look at them; those of mmseg are in `segmentors`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.reading import read, unwrap
from ..errors import UnknownName, UserError, require
from . import segmentors
from .subject import Subject, cell, denormalised, fill, must_be_dynamic, picture


def subject(
    name: str | None,
    image: Path,
    checkpoint: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    pixels: int | None = None,
) -> Subject:
    """A network and an image.

    Args:
        name: A model that timm knows once ours are registered, or a config of mmsegmentation; None with a cell, which
            knows.
        image: A file.
        checkpoint: Weights, our trainer's or others; or the folder of a study's cell. None: as initialised.
        arguments: For the model (``num_kernels``, ``where``, ``small_stem``, ...).
        pixels: Side of the input; None: what the checkpoint was trained with, else the model's own.

    Raises:
        UserError: If anything is unknown, missing, damaged or does not fit; one line.
    """
    shot = picture(image)
    if checkpoint is not None and checkpoint.is_dir():
        if arguments:
            raise UserError(f"{checkpoint} is as it was trained: leave --operator-arg out")
        return _of_cell(name, shot, image, checkpoint, pixels)
    if name is None:
        raise UserError("name a model, e.g. resnet18_odconv, or a study's cell by --checkpoint DIR")
    if segmentors.named(name):
        return segmentors.subject(name, shot, image, checkpoint, arguments or {}, pixels)
    timm = require("timm", "timm")
    import timm_models  # noqa: F401 - registers ours

    if not timm.is_model(name.partition(".")[0]):
        import mmseg_configs

        try:
            from tsai_models import __all__ as of_series
        except UserError:  # without tsai, which they need
            of_series = []
        if name in of_series:
            raise UserError(f"{name} looks at a series: --series FILE.tsv or a data set, not --image")
        raise UnknownName("model", name, [*timm.list_models(), *mmseg_configs.names()])
    options, trained, weights = dict(arguments or {}), {}, None
    if checkpoint is not None:
        weights, trained = _stored(checkpoint)
        if trained.get("model", name) != name:
            raise UserError(f"checkpoint {checkpoint} is of {trained['model']}, not {name}")
        built = {"in_chans": _channels(trained), "global_pool": trained.get("gp"), "bn_eps": trained.get("bn_eps")}
        built["num_classes"] = _classes(timm, name, weights)
        options = {**built, **(trained.get("model_kwargs") or {}), **options}
    torch.manual_seed(0)  # so that an untrained network is the same one every time
    try:
        model = timm.create_model(name, **{k: v for k, v in options.items() if v is not None}).eval()
    except UserError:
        raise
    except Exception as e:  # whatever a model's constructor makes of its arguments
        raise UserError(f"cannot make {name}: {' '.join(str(e).split())}") from None
    must_be_dynamic(model, name, f"; try {name}_odconv" if timm.is_model(f"{name}_odconv") else "")
    if weights is not None:
        fill(model, weights, checkpoint, name)
    x, shown = _seen(model, shot, {**trained, "in_chans": options.get("in_chans")}, pixels)
    said = f"weights: {checkpoint}" if checkpoint else "weights: random, as initialised"
    return Subject(model, x, shown, f"{name}, {image.name}", said)


def _stored(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights in a file, averaged ones first, and the arguments of their training where it holds them."""
    content = read(path)
    try:
        weights = unwrap(content)
    except UserError as e:
        raise UserError(f"checkpoint {path}: {e}") from None
    trained = content.get("args") if isinstance(content, Mapping) else None
    trained = vars(trained) if isinstance(trained, argparse.Namespace) else trained
    return weights, dict(trained) if isinstance(trained, Mapping) else {}


def _channels(trained: Mapping[str, Any]) -> int | None:
    """Of the input in a training of timm's; None where its arguments do not say."""
    return trained.get("in_chans") or (trained.get("input_size") or (None,))[0]


def _classes(timm, name: str, weights: Mapping[str, torch.Tensor]) -> int | None:
    """As many as the classifier in the weights has; None if it is not there."""
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    head = f"{cfg.classifier}.weight" if cfg is not None and isinstance(cfg.classifier, str) else "fc.weight"
    return len(weights[head]) if head in weights else None


def _seen(model, shot, trained: Mapping[str, Any], pixels: int | None):
    from timm.data import create_transform

    from timm_models.inputs import data_config, image_mode

    kept = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "input_size", "img_size")
    channels = _channels(trained) or 3
    if channels not in (1, 3):
        raise UserError(f"the network looks at images of {channels} channels, and this command at those of 1 or 3")
    config = data_config({k: trained[k] for k in kept if trained.get(k)}, model, channels)
    if pixels is not None:
        config["input_size"] = (channels, pixels, pixels)
    shot = shot.convert(image_mode(trained.get("input_img_mode"), channels))
    x = create_transform(**config)(shot)[None]
    return x, denormalised(x, config["mean"], config["std"])


def _of_cell(name: str | None, shot, image: Path, folder: Path, pixels: int | None) -> Subject:
    record, model, names = cell(folder)
    title = f"{record['network']} with {record['operator']}"
    if record["host"] == "tsai":
        raise UserError(f"{folder} is of time series: give --series instead of --image")
    if name not in (None, record["network"], f"{record['network']}_{record['operator']}"):
        raise UserError(f"{folder} is of {title}, not of {name}: leave MODEL out")
    must_be_dynamic(model, str(folder))
    if record["host"] == "timm":
        import yaml

        path = folder / "run" / "args.yaml"
        try:
            trained = dict(yaml.safe_load(path.read_text())) if path.is_file() else {}
        except (yaml.YAMLError, ValueError, TypeError) as e:
            raise UserError(f"{path} is damaged ({type(e).__name__})") from None
        x, shown = _seen(model, shot, trained, pixels)
    else:
        x, shown = segmentors.seen(model, shot, pixels or record["data"]["options"]["pixels"])
        if record["data"].get("real"):
            from mmseg.datasets import PascalVOCDataset

            names = list(PascalVOCDataset.METAINFO["classes"])
    says = "prediction" if record["host"] == "timm" else segmentors.SAYS
    return Subject(model, x, shown, f"{title}, {image.name}", f"weights: {folder}", names, says)
