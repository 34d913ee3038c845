"""What every dynamic layer of a network did with one input, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import registry
from ..convert import operators_in
from ..operators import ORConv1d, ORConv2d, ORConv3d
from ..operators.base import DynamicConv
from ..recorder import record_attention

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_ORIENTED = (ORConv1d, ORConv2d, ORConv3d)


@dataclass
class Layer:
    """One dynamic layer and one sample.

    Attributes:
        name: Its name in the network.
        operator: Its name in the registry.
        sizes: ``in_channels``, ``out_channels``, ``kernel_size``, ``input_size`` and ``output_size``.
        kernel: What the K kernels are weighted with, ``[K]``; the mean over positions where each has its own weights,
            and for `orconv` the share of outputs that each rotation wins.
        kernel_map: The same by position, ``[K, *S_out]``, where it differs.
        spatial: Factors of the taps, ``[*kernel_size]``.
        input: Factors of the input channels, ``[C_in]``.
        output: Factors of the filters, ``[C_out]``; zeros and ones for `hard`.
        mixing: DCD's matrix that mixes the latent channels, ``[l, l]``.
        mask: The part of each filter that a mask learned for the task leaves on, ``[C_out]``; the same for all inputs.
        calls: How often the layer ran; the first time is shown.
    """

    name: str
    operator: str
    sizes: dict[str, list[int]]
    kernel: np.ndarray | None = None
    kernel_map: np.ndarray | None = None
    spatial: np.ndarray | None = None
    input: np.ndarray | None = None
    output: np.ndarray | None = None
    mixing: np.ndarray | None = None
    mask: np.ndarray | None = None
    calls: int = 1
    labels: list[str] = field(default_factory=list)

    @property
    def shares(self) -> np.ndarray | None:
        """The kernel weights, scaled to add up to one; by position where there is a map."""
        weights = self.kernel if self.kernel_map is None else self.kernel_map
        return None if weights is None else weights / np.maximum(weights.sum(0, keepdims=True), 1e-12)

    @property
    def entropy(self) -> float | None:
        """Of the mix, as a part of the most there can be: 1 is all kernels alike, 0 a single one. Mean of positions."""
        p = self.shares
        if p is None or len(p) < 2:
            return None
        return float(-(p * np.log(np.maximum(p, 1e-12))).sum(0).mean() / math.log(len(p)))

    @property
    def gates(self) -> dict[str, np.ndarray]:
        """The factors that scale, by name."""
        named = {"taps": self.spatial, "channels": self.input, "filters": self.output, "task mask": self.mask}
        return {name: values for name, values in named.items() if values is not None}


@torch.inference_mode()
def explain(model: nn.Module, x: Tensor) -> tuple[list[Layer], Tensor]:
    """Runs a network on one sample and tells what its dynamic layers did, in the order in which they ran.

    Args:
        model: In eval mode.
        x: ``[1, ...]``.

    Returns:
        The layers, and what the network returned.
    """
    with _watched(model) as seen, record_attention(model) as recorded:
        y = model(x)
    operators = operators_in(model)
    return [_layer(name, operators[name], recorded[name], *seen[name]) for name in seen], y


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Input and output of each dynamic layer's first call, by name."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str):
        return lambda _module, inputs, output: seen.setdefault(name, (inputs[0].detach(), output.detach())) and None

    handles = [op.register_forward_hook(hook(name)) for name, op in operators_in(model).items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _layer(name: str, op: DynamicConv, calls: list, x: Tensor, y: Tensor) -> Layer:
    sizes = {"in_channels": [op.in_channels], "out_channels": [op.out_channels], "kernel_size": list(op.kernel_size)}
    sizes |= {"input_size": list(x.shape[2:]), "output_size": list(y.shape[2:])}
    layer = Layer(name or type(op).__name__, short_name(op), sizes, calls=len(calls))
    factors = {} if not calls else {k: v[0].numpy() for k, v in calls[0]._asdict().items() if v is not None}
    if "kernel" in factors and factors["kernel"].ndim > 1:
        layer.kernel_map, factors["kernel"] = factors["kernel"], factors["kernel"].mean(axis=_positions(factors))
    for key, values in factors.items():
        setattr(layer, key, values)
    if isinstance(op, _ORIENTED) and op.combine == "max":
        layer.kernel_map = _winners(op, x)
        layer.kernel = None if layer.kernel_map is None else layer.kernel_map.mean(axis=tuple(range(1, op.dims + 1)))
        turn = 360 // op.rotations
        layer.labels = [f"{turn * i}°" for i in range(op.rotations)]
    elif layer.kernel is not None:
        layer.labels = [f"kernel {i + 1}" for i in range(len(layer.kernel))]
    if getattr(op, "mask", None) == "task":
        on = (op.zeta > 0).float().flatten(1).mean(1)
        layer.mask = on.cpu().numpy()
    return layer


def _positions(factors: dict[str, np.ndarray]) -> tuple[int, ...]:
    return tuple(range(1, factors["kernel"].ndim))


def _winners(op: DynamicConv, x: Tensor) -> np.ndarray | None:
    """At each position, the share of filters whose maximum is that of rotation r, ``[R, *S_out]``; None for one tap."""
    kernels = op.kernels
    if len(kernels) < 2:
        return None
    padded, padding = op.pad(x)
    answers = [
        _CONV[op.dims](padded, kernel, None, op.stride, padding, op.dilation, op.groups)[0] for kernel in kernels
    ]
    winner = torch.stack(answers).argmax(0)  # [C_out, *S_out]
    return torch.stack([(winner == r).float().mean(0) for r in range(len(kernels))]).cpu().numpy()


def short_name(op: DynamicConv) -> str:
    """The registry's name for a layer; of two that share a class, the one whose number of kernels fits."""
    found = [registry.get(n) for n in registry.names() if isinstance(op, registry.get(n).classes[op.dims])]
    exact = [e for e in found if e.defaults.get("num_kernels") == op.num_kernels]
    return (exact or found)[0].name if found else type(op).__name__
