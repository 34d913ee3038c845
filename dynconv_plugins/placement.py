"""Which convolutions of a model become dynamic."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from .errors import UnknownName

Where = str | Callable[[str, nn.Module], bool]

# How timm, mmseg, torchvision and tsai call the projection beside a residual block, and the layers before the first.
_SHORTCUT = re.compile(r"(^|\.)(downsample|shortcut|skip)(\.|$)")
_STEM = re.compile(r"(^|\.)(stem|conv_stem)(\.|$)")

PLACEMENTS = ("blocks", "all")
_PLAIN = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


def convolutions(model: nn.Module) -> dict[str, nn.Module]:
    """Every convolution that computes exactly what ``nn.ConvNd`` computes, by its name in the model.

    Subclasses with a forward of their own (weight standardisation, padding computed from the input) are left out:
    replacing them would change the network.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if any(
            isinstance(module, kind)
            and type(module).forward is kind.forward
            and type(module)._conv_forward is kind._conv_forward
            for kind in _PLAIN
        )
    }


def dims_of(conv: nn.Module) -> int:
    """Number of spatial dimensions of an ``nn.ConvNd``."""
    return next(dims for kind, dims in _PLAIN.items() if isinstance(conv, kind))


def select(model: nn.Module, where: Where) -> dict[str, nn.Module]:
    """The convolutions that `where` means.

    Args:
        model: Any model.
        where: ``'blocks'``: all but the stem and the shortcuts beside residual blocks (the placement of ODConv's
            table); ``'all'``; a regular expression searched in module names; or ``callable(name, module) -> bool``.

    Raises:
        UnknownName: If a string is neither a placement nor matches any convolution.
    """
    convs = convolutions(model)
    if callable(where):
        return {name: conv for name, conv in convs.items() if where(name, conv)}
    if where == "all":
        return convs
    if where == "blocks":
        stem = _stem(convs)
        return {name: conv for name, conv in convs.items() if name not in stem and not _SHORTCUT.search(name)}
    try:
        pattern = re.compile(where)
    except re.error as e:
        raise UnknownName("placement", where, PLACEMENTS) from e
    chosen = {name: conv for name, conv in convs.items() if pattern.search(name)}
    if not chosen:
        raise UnknownName("placement", where, PLACEMENTS)
    return chosen


def _stem(convs: dict[str, nn.Module]) -> set[str]:
    """The first convolution, with its siblings where a stem is a sequence of them."""
    if not convs:
        return set()
    first = next(iter(convs))
    inside = first.rpartition(".")[0]
    # timm's deep stem is a Sequential `conv1`, mmseg's `stem`; a block's own Sequential holds other modules before it.
    siblings = {n for n in convs if inside in ("conv1", "stem") and n.startswith(inside + ".")}
    return {first} | siblings | {n for n in convs if _STEM.search(n)}
