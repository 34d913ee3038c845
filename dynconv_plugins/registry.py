"""Short names for operators: the same in Python, timm's model names, mmseg's ``conv_cfg``, tsai, the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

from . import operators as ops
from .errors import UnknownName


@dataclass(frozen=True)
class Operator:
    """One entry.

    Attributes:
        name: The short name.
        classes: The class for one, two and three spatial dimensions.
        defaults: Arguments that the name stands for, e.g. four kernels.
        where: The placement of its paper, see `placement`.
        summary: One line for tables.
    """

    name: str
    classes: Mapping[int, type[nn.Module]]
    summary: str
    where: str = "blocks"
    defaults: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


_ODCONV = {1: ops.ODConv1d, 2: ops.ODConv2d, 3: ops.ODConv3d}

_OPERATORS = {
    operator.name: operator
    for operator in (
        Operator("odconv", _ODCONV, "taps, input channels and filters attended, one kernel (ODConv, ICLR 2022)"),
        Operator("odconv4x", _ODCONV, "the same with four kernels mixed", defaults={"num_kernels": 4}),
    )
}


def names() -> list[str]:
    """The short names, in the order of the documentation."""
    return list(_OPERATORS)


def get(name: str) -> Operator:
    """The entry of `name`.

    Raises:
        UnknownName: If there is none; with suggestions.
    """
    if name not in _OPERATORS:
        raise UnknownName("operator", name, _OPERATORS)
    return _OPERATORS[name]


def build(name: str, dims: int, *conv, **options) -> nn.Module:
    """Builds an operator like ``nn.ConvNd``; `options` override what the name stands for."""
    operator = get(name)
    return operator.classes[dims](*conv, **{**operator.defaults, **options})
