"""Parameters and multiply-adds of a model, counted by fvcore with a handle for dynamic convolutions."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .backends import force
from .compiled import bare
from .errors import require

# Operations of a trace, and fvcore's handle for each. An explicit list: giving fvcore `None` does not take back its
# default handle for an operation such as batch norm.
_COUNTED = {
    "_convolution": "conv",
    "convolution": "conv",
    "linear": "linear",
    "addmm": "addmm",
    "mm": "matmul",
    "matmul": "matmul",
    "bmm": "bmm",
    "einsum": "einsum",
}


class Complexity(NamedTuple):
    """What a model costs.

    Attributes:
        params: Number of learned values.
        macs: Multiply-adds of one forward pass: convolutions, matrix products and the making of dynamic kernels.
    """

    params: int
    macs: int


def complexity(model: nn.Module, input_size: Sequence[int]) -> Complexity:
    """Counts a model's parameters and multiply-adds, one multiply-add counted once.

    Normalisation, activation and static pooling are left out, as in the published counts; what a dynamic convolution
    counts is written down in `backends.counting.multiply_adds`.

    Args:
        model: Left as it is; a copy in eval mode is traced.
        input_size: The input's shape with its batch, e.g. ``(1, 3, 224, 224)``; counts are for the whole batch.

    Raises:
        UserError: If fvcore is not installed.
    """
    flop_count = require("fvcore.nn", "study").FlopCountAnalysis
    handles = require("fvcore.nn.jit_handles", "study")
    from .backends import counting

    traced = copy.deepcopy(bare(model)).eval()
    first = next(traced.parameters(), torch.empty(()))
    x = torch.zeros(tuple(input_size), device=first.device, dtype=first.dtype)
    analysis = flop_count(traced, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.clear_op_handles().set_op_handle(
        **{f"aten::{name}": getattr(handles, f"{handle}_flop_jit") for name, handle in _COUNTED.items()},
        **{"aten::_convolution_mode": _count_named_padding, counting.OP: _count_dynamic},
    )
    with force(counting), torch.no_grad(), warnings.catch_warnings():
        # Python numbers in a trace are what a count wants.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        macs = int(analysis.total())
    return Complexity(sum(p.numel() for p in model.parameters()), macs)


def _count_named_padding(inputs: list[Any], outputs: list[Any]) -> int:
    """fvcore's handle for a convolution with ``padding='same'`` or ``'valid'``, which it has none for."""
    weight, y = inputs[1].type().sizes(), outputs[0].type().sizes()
    return y[0] * math.prod(weight) * math.prod(y[2:])


def _count_dynamic(inputs: list[Any], outputs: list[Any]) -> int:
    """fvcore's handle for `counting.OP`."""
    from .backends.counting import multiply_adds

    def shape(value: Any) -> list[int]:
        return value.type().sizes()

    x, weight, kernel, spatial, channels, filters, _, combine = inputs
    there = [not isinstance(value.type(), torch.NoneType) for value in (kernel, spatial, channels, filters)]
    per_position = there[0] and len(shape(kernel)) > 2
    aggregated = not per_position and (combine.toIValue() == "sum" or shape(weight)[0] == 1)
    return multiply_adds(
        shape(x), shape(weight), shape(outputs[0]), there[0], there[1] or there[2], there[3], aggregated
    )
