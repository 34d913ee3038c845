"""Finding the state dict in what trainers save, and reading such files without unpickling."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

# How trainers call the weights among the other things they save; averaged ones first, they are what was validated.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
# What DistributedDataParallel, DataParallel, timm's averages and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")
# How the last layer of an attention was called at first, see `DynamicConv._load_from_state_dict`.
_EARLIER = re.compile(r"\.attention\.heads?\.")


def unwrap(content: Any, own: Collection[str] = ()) -> dict[str, Tensor]:
    """The bare state dict in `content`.

    Args:
        content: A state dict, or a dictionary that holds one as ``'state_dict'``, ``'model'`` and the like.
        own: The names of the model it is for, whose own prefixes stay.

    Raises:
        UserError: If there are no weights in it.
    """
    found = content
    while isinstance(found, Mapping):
        inner = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping):
        raise UserError(f"no state dict but a {type(found).__name__}: pass what model.state_dict() returns")
    other = next(
        (f"'{key}' is of type {type(value).__name__}" for key, value in found.items() if not _is_entry(key, value)), ""
    )
    # The one entry of torch's AveragedModel that is not under its prefix.
    weights = {key: value for key, value in found.items() if key != "n_averaged" or key in own}
    if other or not weights:
        raise UserError(f"not a state dict: {other or 'it is empty'}")
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in weights)), None):
        if any(key.startswith(prefix) for key in own):
            break
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return {_EARLIER.sub(".attention.logits.", key): value for key, value in weights.items()}


def _is_entry(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def read(path: str | Path) -> Any:
    """The contents of a ``.safetensors`` file or of what ``torch.save`` wrote; nothing but plain values is unpickled.

    Raises:
        UserError: If the file is missing, damaged, or holds anything but weights and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} " + ("is a folder" if path.is_dir() else "does not exist"))
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        # Trainers like to save their command line next to the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        # torch's own text recommends to unpickle it all the same.
        if held := re.search(r"Unsupported global: GLOBAL (\S+)", str(e)):
            why = f"holds a {held[1]}, which is not unpickled: save its state dict alone, with torch.save"
            raise UserError(f"checkpoint {path} {why}") from e
        raise UserError(f"checkpoint {path} is damaged, or holds more than weights and plain values") from e
    except Exception as e:  # zip and safetensors have exceptions of their own for a broken file
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise UserError(f"checkpoint {path} cannot be read as weights: {reason}") from e
