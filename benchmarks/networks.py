"""The networks that `benchmarks.models` and `benchmarks.heads` time: dynamic, static, and with timm's own CondConv."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dynconv_plugins as dc
from dynconv_plugins.errors import UnknownName, UserError
from dynconv_plugins.operators.base import DynamicConv
from dynconv_plugins.operators.heads import pooled

FCN = "fcn"  # tsai's, on series; every other network is timm's, on images
STEMS = ("small", "imagenet")
CLASSES = {FCN: 37}


@functools.cache
def image_networks() -> list[str]:
    """Names of timm's networks that `timm_models` makes dynamic."""
    import timm_models

    return [name.removesuffix("_odconv") for name in timm_models.list_models("*_odconv")]


def check_network(name: str) -> str:
    """Returns `name` if it is a network's.

    Raises:
        UnknownName: If it is not.
    """
    if name != FCN and name not in image_networks():
        raise UnknownName("network", name, [*image_networks(), FCN])
    return name


def dynamic(network: str, operator: str, stem: str = "imagenet", **options) -> nn.Module:
    """A network with an operator in the places its paper has it, freshly initialised.

    Args:
        network: A name of timm's that `timm_models` knows, or `FCN`.
        operator: Name in the registry.
        stem: ``'small'`` for images of about 64 px (see ``small_stem`` in `timm_models`), or ``'imagenet'``.
        options: The operator's, e.g. ``num_kernels=4``.
    """
    if network == FCN:
        from tsai_models import ODConvFCN

        return ODConvFCN(1, CLASSES[FCN], operator=operator, **options)
    import timm

    check_network(network)
    return timm.create_model(f"{network}_{operator}", small_stem=stem == "small", **options)


def static(network: str, stem: str = "imagenet") -> nn.Module:
    """The same network with torch's convolution in place of each dynamic one."""
    return _replaced(dynamic(network, "odconv", stem), lambda op: op.static(op.stacked[0], op.bias))


def timm_condconv(model: nn.Module) -> nn.Module:
    """Replaces the ``condconv`` layers of a network by timm's layer: the same routing, kernels and number of them.

    Args:
        model: Changed in place.

    Raises:
        UserError: If it has no such layers in two dimensions, or one with a bias, which timm's layer would mix.
    """
    ours = [op for op in dc.operators_in(model).values() if isinstance(op, dc.CondConv2d)]
    if not ours or any(op.bias is not None for op in ours):
        raise UserError("timm.layers.CondConv2d stands in only for condconv in two dimensions without biases")
    return _replaced(model, TimmCondConv)


class TimmCondConv(nn.Module):
    """``timm.layers.CondConv2d`` behind the routing of our operator, whose values it starts with.

    Args:
        op: The ``CondConv2d`` it stands in for.
    """

    def __init__(self, op: DynamicConv) -> None:
        super().__init__()
        from timm.layers import CondConv2d

        self.routing = op.attention.routing
        geometry = (op.kernel_size, op.stride, op.padding, op.dilation, op.groups)
        self.conv = CondConv2d(op.in_channels, op.out_channels, *geometry, num_experts=op.num_kernels)
        with torch.no_grad():
            self.conv.weight.copy_(op.weight.reshape(op.num_kernels, -1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.routing(pooled(x)).sigmoid())


def shape(network: str, size: int, batch: int) -> tuple[int, ...]:
    """The input's shape: images of `size` x `size`, or series of that length."""
    return (batch, 1, size) if network == FCN else (batch, 3, size, size)


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, in fp32 whatever the network computes in."""
    return F.cross_entropy(logits.float(), labels)


def _replaced(model: nn.Module, make) -> nn.Module:
    for name, op in dc.operators_in(model).items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, make(op))
    return model
