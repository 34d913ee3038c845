"""Reading a classifier's checkpoint into a backbone, completely or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from dynconv_plugins.checkpoints.reading import read as contents
from dynconv_plugins.checkpoints.reading import unwrap
from dynconv_plugins.errors import UserError


def read(path: str | Path) -> dict[str, Tensor]:
    """Returns the state dict in a ``.safetensors`` file, or in what timm's or our trainer saved (EMA weights first).

    Raises:
        UserError: If the file is missing, damaged, or holds anything but weights and plain values.
    """
    content = contents(path)
    try:
        return unwrap(content)
    except UserError as e:
        raise UserError(f"checkpoint {path}: {e}") from e


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


def _flat(key: str) -> str:
    return key.replace(".", "_")
