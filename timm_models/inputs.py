"""How images become a network's input: timm's answer, for any number of channels."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from PIL import Image
from timm.data import resolve_data_config
from torch import nn

from dynconv_plugins.errors import UserError


def input_channels(args: argparse.Namespace) -> int:
    """Returns the number of channels that the flags ask for.

    Raises:
        UserError: If they contradict each other, or no kind of images is known to have so many.
    """
    channels = args.in_chans or (args.input_size[0] if args.input_size else 3)
    if args.input_size and args.input_size[0] != channels:
        raise UserError(f"--in-chans {channels}, but --input-size has {args.input_size[0]} channels")
    mode = image_mode(args.input_img_mode, channels)
    if mode is None:
        raise UserError(f"images of {channels} channels: say which with --input-img-mode, e.g. LA or RGBA")
    try:
        bands = Image.getmodebands(mode)
    except KeyError:
        raise UserError(f"--input-img-mode {mode} is not a mode of PIL's, such as L, RGB or RGBA") from None
    if bands != channels:
        raise UserError(f"--input-img-mode {mode} has {bands} channels, not {channels}: give --in-chans {bands}")
    return channels


def image_mode(asked: str | None, channels: int) -> str | None:
    """Returns PIL's mode for images of so many channels, `asked` or the usual one; None where there is no such."""
    return asked or {1: "L", 3: "RGB"}.get(channels)


def data_config(given: Mapping[str, Any], model: nn.Module, channels: int) -> dict[str, Any]:
    """Returns timm's ``input_size``, ``mean``, ``std``, ``interpolation``, ``crop_pct`` and ``crop_mode``.

    Args:
        given: What was asked for, by the names of timm's flags; the model's own settings are the default.
        model: A network of timm.
        channels: Of its input. Means and deviations of another number of channels are averaged.

    Raises:
        AssertionError: If `given` has means or deviations that are neither one nor one for each channel.
    """
    config = resolve_data_config({**given, "in_chans": channels}, model=model)
    config["input_size"] = (channels, *config["input_size"][1:])
    for name in ("mean", "std"):
        values = config[name]
        config[name] = tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
    return config
