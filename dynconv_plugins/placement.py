"""Which convolutions of a model become dynamic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import nn

from .errors import UnknownName

Where = str | Callable[[str, nn.Module], bool]
Convs = Mapping[str, nn.Module]

# How timm, mmseg, torchvision and tsai call the projection beside a residual block, and the layers before the first.
_SHORTCUT = re.compile(r"(^|\.)(downsample|shortcut|skip)(\.|$)")
_STEM = re.compile(r"(^|\.)(stem|conv_stem)(\.|$)")
# How they call the gates that scale a map's channels or positions, whose convolutions mostly read a single position:
# squeeze-and-excitation and its like whole; of `attn` and of the block itself, which may be self-attention, an MLP or
# a classifier as well, what only gates have in them.
_GATE = re.compile(
    r"(^|\.)(se|se_early|se_layer|se_module|squeeze_excitation|atten_conv_layer|conv_atten)(\.|$)"
    r"|(^|\.)attn(_last)?\.(fc\w*$|conv(_attn)?$|mlp\w*\.|channel\.|spatial\.)"
    r"|(^|\.)(conv\d|block\.\d+|layers\.\d+)\.fc[12]?$"
)

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
        where: A name of `PLACEMENTS`, a regular expression searched in module names, or
            ``callable(name, module) -> bool``. The names, of which only ``'all'`` means gates too (the convolutions
            of squeeze-and-excitation and the like, known by the names that most networks of timm, torchvision and mmseg
            give them; those of HGNet are called what convolutions are in HGNetV2, and count as such):

            - ``'blocks'``: all but the stem and the shortcuts beside residual blocks (ODConv's table);
            - ``'dense_blocks'``: these without depthwise convolutions (A2D2C's table);
            - ``'body'``: all but the stem (DyConv's and DCD's);
            - ``'all'`` (CondConv's);
            - ``'initial'``, ``'median'``, ``'terminal'``: the very first convolution, the middle one and the last one
              of the blocks (A2D2C, section 5.1; with four kernels in ResNet-18's first one 11.72M parameters, as
              printed there, while the other two counts cannot come from replacing convolutions: see the documentation);
            - ``'block_first'``: the first convolution of each block (A2D2C, section 5.3).

    Raises:
        UnknownName: If a string is neither a placement nor matches any convolution.
        ValueError: If it is neither a string nor callable.
    """
    if not (isinstance(where, str) or callable(where)):
        raise ValueError(f"where must be a placement, a regular expression or a function, got {where!r}")
    convs = convolutions(model)
    if callable(where):
        return {name: conv for name, conv in convs.items() if where(name, conv)}
    if where in PLACEMENTS:
        return {name: convs[name] for name in PLACEMENTS[where](convs)}
    try:
        pattern = re.compile(where)
    except re.error as e:
        raise UnknownName("placement", where, PLACEMENTS) from e
    chosen = {name: conv for name, conv in convs.items() if pattern.search(name)}
    if not chosen:
        raise UnknownName("placement", where, PLACEMENTS)
    return chosen


def block_of(name: str, convs: Convs) -> Convs:
    """The convolutions of the block that `name` stands in, shortcuts and gates left out.

    The block is the smallest module around it that holds two convolutions or more, gates aside.
    """
    inside = name
    while inside:
        inside = inside.rpartition(".")[0]
        around = (n for n in convs if not inside or n.startswith(inside + "."))
        block = {n: convs[n] for n in around if not _GATE.search(n)}
        if len(block) > 1:
            break
    return {n: c for n, c in block.items() if not _SHORTCUT.search(n)}


def _body(convs: Convs) -> list[str]:
    stem = _stem(convs)
    return [name for name in convs if name not in stem and not _GATE.search(name)]


def _blocks(convs: Convs) -> list[str]:
    return [name for name in _body(convs) if not _SHORTCUT.search(name)]


def _dense_blocks(convs: Convs) -> list[str]:
    return [name for name in _blocks(convs) if not 1 < convs[name].groups == convs[name].in_channels]


def _block_first(convs: Convs) -> list[str]:
    return [name for name in _blocks(convs) if next(iter(block_of(name, convs))) == name]


PLACEMENTS: dict[str, Callable[[Convs], list[str]]] = {
    "blocks": _blocks,
    "dense_blocks": _dense_blocks,
    "body": _body,
    "all": list,
    "initial": lambda convs: list(convs)[:1],
    "median": lambda convs: _blocks(convs)[len(_blocks(convs)) // 2 :][:1],
    "terminal": lambda convs: _blocks(convs)[-1:],
    "block_first": _block_first,
}


def _stem(convs: Convs) -> set[str]:
    """The first convolution, with its siblings where a stem is a sequence of them."""
    if not convs:
        return set()
    first = next(iter(convs))
    inside = first.rpartition(".")[0]
    # timm's deep stem is a Sequential `conv1`, mmseg's `stem`; a block's own Sequential holds other modules before it.
    siblings = {n for n in convs if inside in ("conv1", "stem") and n.startswith(inside + ".")}
    return {first} | siblings | {n for n in convs if _STEM.search(n)}
