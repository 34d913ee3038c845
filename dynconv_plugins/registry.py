"""Short names for operators: the same in Python, timm's model names, mmseg's ``conv_cfg``, tsai, the command line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

from . import operators as ops
from .errors import UnknownName

CONVOLUTION = frozenset(inspect.signature(nn.Conv2d).parameters)  # arguments that every operator has


@functools.cache
def options_of(cls: type[nn.Module]) -> tuple[str, ...]:
    """Names of an operator class's own arguments, such as ``num_kernels``: those that ``nn.ConvNd`` does not have."""
    return tuple(p.name for p in inspect.signature(cls).parameters.values() if p.kind is p.KEYWORD_ONLY)


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

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the operator's own arguments, the same for one, two and three dimensions."""
        return options_of(self.classes[2])

    def checked(self, options: dict[str, Any]) -> dict[str, Any]:
        """Returns `options`, which are all the operator's own.

        Raises:
            UnknownName: If one is not; with suggestions.
        """
        for name in options:
            if name not in self.options:
                raise UnknownName(f"argument of {self.name}", name, self.options)
        return options


def _classes(prefix: str) -> dict[int, type[nn.Module]]:
    return {dims: getattr(ops, f"{prefix}{dims}d") for dims in (1, 2, 3)}


_OPERATORS = {
    operator.name: operator
    for operator in (
        Operator(
            "condconv", _classes("CondConv"), "8 kernels mixed by sigmoid weights (CondConv, NeurIPS 2019)", "all"
        ),
        Operator("dyconv", _classes("DyConv"), "4 kernels mixed by a softmax (Dynamic Convolution, CVPR 2020)", "body"),
        Operator("dcd", _classes("DCD"), "scaled kernel and low-rank dynamic residual (DCD, ICLR 2021)", "body"),
        Operator(
            "odconv", _classes("ODConv"), "taps, input channels and filters attended, one kernel (ODConv, ICLR 2022)"
        ),
        Operator("odconv4x", _classes("ODConv"), "the same with four kernels mixed", defaults={"num_kernels": 4}),
        Operator("a2d2c", _classes("A2D2C"), "4 kernels mixed by local features (A2D2C)", "dense_blocks"),
        Operator("a2d2cplus", _classes("A2D2CPlus"), "the same, outputs mixed (A2D2C+)", "dense_blocks"),
        Operator("globalsoft", _classes("GlobalSoft"), "input channels gated from the whole map (study, 2.1.3)"),
        Operator("localsoft", _classes("LocalSoft"), "4 kernels mixed anew at each position (study, 2.1.2)"),
        Operator("hard", _classes("Hard"), "filters switched on and off by the input (study, 2.1.4; MetaDOCK)"),
        Operator("orconv", _classes("ORConv"), "one kernel in 4 rotations, the maximum of them (study, 2.1.5)"),
        Operator("fdconv", _classes("FDConv"), "4 frequency bands of one kernel mixed (from FDConv, CVPR 2025)"),
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
    if not isinstance(name, str) or name not in _OPERATORS:
        raise UnknownName("operator", name, _OPERATORS)
    return _OPERATORS[name]


def build(name: str, dims: int, *conv, **options) -> nn.Module:
    """Builds an operator.

    Args:
        name: The short name.
        dims: Number of spatial dimensions, 1 to 3.
        conv: As of ``nn.ConvNd``.
        options: As of ``nn.ConvNd``, and the operator's own; they override what the name stands for.

    Raises:
        UnknownName: If there is no such operator, or it has no such argument; with suggestions.
        ValueError: As ``nn.ConvNd`` does, or for arguments out of range.
    """
    operator = get(name)
    operator.checked({key: value for key, value in options.items() if key not in CONVOLUTION})
    return operator.classes[dims](*conv, **{**operator.defaults, **options})
