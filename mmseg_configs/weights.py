"""Reading a classifier's checkpoint into a backbone, completely or not at all."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dynconv_plugins.checkpoints import layouts
from dynconv_plugins.checkpoints.differences import compare, with_own_counter
from dynconv_plugins.checkpoints.reading import read as contents
from dynconv_plugins.checkpoints.reading import unwrap
from dynconv_plugins.convert import operators_in
from dynconv_plugins.errors import UserError

from . import reading

# Where a segmentor holds the network inside its `DynConvBackbone`.
_SEGMENTORS = "backbone.model."


def read(path: str | Path) -> dict[str, Tensor]:
    """Returns the state dict in a ``.safetensors`` file, or in what timm's or our trainer saved (EMA weights first).

    Of a segmentor that was trained with `DynConvBackbone` it is the backbone's.

    Raises:
        UserError: If the file is missing, damaged, or holds anything but weights and plain values.
    """
    weights = stored(path)
    own = {key.removeprefix(_SEGMENTORS): value for key, value in weights.items() if key.startswith(_SEGMENTORS)}
    return own or weights


def stored(path: str | Path) -> dict[str, Tensor]:
    """As `read`, but of a segmentor the whole."""
    with torch.serialization.safe_globals(reading.logged()):
        content = contents(path)
    try:
        return unwrap(content)
    except UserError as e:
        raise UserError(f"checkpoint {path}: {e}") from e


def load_features(features: nn.Module, path: str | Path, classifier_keys: Iterable[str]) -> None:
    """Loads `path` into a ``features_only`` model of timm.

    Args:
        features: The model to fill.
        path: Checkpoint of the whole classifier, or of such a model. A static network's starts a dynamic one: each
            operator takes the static kernel over, as `dynconv_plugins.dynamize` has it do.
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
    weights = with_own_counter(own, weights)
    # On a copy, since a file that turns out not to fit must change nothing.
    misfits = layouts.static(weights, operators_in(copy.deepcopy(features)))
    why = trouble(own, weights, misfits)
    if why:
        raise UserError(f"checkpoint {path} is of another architecture than the backbone: {why}")
    features.load_state_dict(weights)


def trouble(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], misfits: Mapping[str, str] | None = None) -> str:
    """Returns how `weights` differ from a model's `own` state dict, in part of a line; empty if they fit.

    Args:
        own: The model's.
        weights: For it.
        misfits: Keys whose shapes were found to differ before, and how.
    """
    missing, unknown, shapes = compare(own, weights)
    shapes |= misfits or {}
    kinds = {
        f"of {len(own)} keys missing": missing,
        "keys unknown": unknown,
        "shapes differ": [f"{key}, {text}" for key, text in shapes.items()],
    }
    return ", ".join(f"{len(entries)} {kind} (first: {entries[0]})" for kind, entries in kinds.items() if entries)


def _flat(key: str) -> str:
    return key.replace(".", "_")
