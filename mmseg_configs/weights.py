"""Reading a classifier's checkpoint into a backbone, completely or not at all."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dynconv_plugins.errors import UserError


def read(path: str | Path) -> dict[str, Tensor]:
    """Returns the state dict in a ``.safetensors`` file, or in what timm's or our trainer saved (EMA weights first).

    Raises:
        UserError: If the file is missing, damaged, or holds anything but weights and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            # timm's trainer stores its command line next to the weights
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # pickle, zip and safetensors all have exceptions of their own for a broken file
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(f"checkpoint {path} cannot be read as weights: {reason}") from e
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    weights = {_bare(key): value for key, value in content.items()} if isinstance(content, dict) else {}
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"checkpoint {path} holds no state dict")
    return weights


def load_features(features: nn.Module, path: str | Path, classifier_keys: Iterable[str]) -> None:
    """Loads `path` into a ``features_only`` model of timm.

    Args:
        features: The model to fill.
        path: Checkpoint of the whole classifier, or of such a model.
        classifier_keys: Keys of the whole classifier; those that `features` lacks may be dropped.

    Raises:
        UserError: If a key is missing, is of another shape, or is unknown to the whole classifier.
    """
    own = features.state_dict()
    # timm's wrappers flatten the names of stages: `stages.0` becomes `stages_0`
    names = {_flat(key): key for key in own}
    weights = {names.get(_flat(key), key): value for key, value in read(path).items()}
    dropped = {_flat(key) for key in classifier_keys} - set(names)
    weights = {key: value for key, value in weights.items() if key in own or _flat(key) not in dropped}
    trouble = compare(own, weights)
    if trouble:
        raise UserError(f"checkpoint {path} is of another architecture than the backbone: {trouble}")
    features.load_state_dict(weights)


def compare(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Returns how `weights` differ from a model's `own` state dict, in part of a line; empty if they fit."""
    missing = [key for key in own if key not in weights]
    unknown = [key for key in weights if key not in own]
    shapes = [key for key in own if key in weights and weights[key].shape != own[key].shape]
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {len(own)} keys missing (first: {missing[0]})")
    if unknown:
        parts.append(f"{len(unknown)} keys unknown (first: {unknown[0]})")
    if shapes:
        key = shapes[0]
        pair = f"{list(weights[key].shape)} instead of {list(own[key].shape)}"
        parts.append(f"{len(shapes)} shapes differ (first: {key}, {pair})")
    return ", ".join(parts)


def _bare(key: str) -> str:
    for prefix in ("module.", "_orig_mod."):
        key = key.removeprefix(prefix)
    return key


def _flat(key: str) -> str:
    return key.replace(".", "_")
