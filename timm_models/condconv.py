"""timm's own CondConv networks (``efficientnet_cc_b0_4e``, ...) on this package's engine.

timm computes one routing for all three convolutions of a block, from the block's input; the operator ``condconv``
computes one for each convolution, from the convolution's input (CondConv, NeurIPS 2019, section 3.1). The two are
different functions, so these networks keep timm's blocks and only their convolutions are replaced.
"""

from __future__ import annotations

import torch
from timm.layers import CondConv2d, pad_same
from torch import Tensor, nn

from dynconv_plugins import Attention
from dynconv_plugins.errors import UserError
from dynconv_plugins.operators.base import DynamicConv
from dynconv_plugins.surgery import replaced


class GivenRouting(nn.Module):
    """Kernel attention that the block has computed already."""

    def forward(self, routing_weights: Tensor) -> Attention:
        return Attention(kernel=routing_weights)

    def neutralise(self) -> float:
        """Nothing is here to make constant."""
        return 1.0


class RoutedCondConv2d(DynamicConv):
    """CondConv with the mixing weights as a second input, called like ``timm.layers.CondConv2d``.

    Args:
        conv: As for `DynamicConv`.
        pad_like_tensorflow: Pads to ``ceil(size / stride)`` positions, more after than before, as networks ported
            from TensorFlow do; `padding` is then unused.

    Shape:
        ``[B, C_in, H, W]`` and ``[B, K]`` to ``[B, C_out, H_out, W_out]``.

    Source: Yang et al., "CondConv", NeurIPS 2019, eq. 1.
    """

    dims = 2
    preserves_static = False

    def __init__(self, *conv, pad_like_tensorflow: bool = False, **conv_options) -> None:
        super().__init__(*conv, **conv_options)
        self.pad_like_tensorflow = pad_like_tensorflow
        self.attention = GivenRouting()

    def frozen(self, attention: Attention) -> None:
        """Nothing: the block calls its convolutions with the routing, which a static one does not take."""

    def forward(self, x: Tensor, routing_weights: Tensor) -> Tensor:
        """``[B, C_in, H, W]`` and mixing weights ``[B, K]``, as they are used, to ``[B, C_out, H_out, W_out]``."""
        return self.convolve(x, self.attention(routing_weights))

    def pad(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Pads as TensorFlow where asked to, and returns what is left for the engine."""
        if self.pad_like_tensorflow:
            return pad_same(x, self.kernel_size, self.stride, self.dilation), (0, 0)
        return super().pad(x)


def adopt_condconv(model: nn.Module) -> nn.Module:
    """Replaces the CondConv layers of a timm network by ours, in place, weights kept: the same outputs.

    ``dynconv_plugins.convert_checkpoint`` turns weights of timm's network into those of the result.

    Args:
        model: E.g. ``timm.create_model('efficientnet_cc_b0_4e')``.

    Returns:
        The same model.

    Raises:
        UserError: If it has no such layers, or one that also mixes its biases.
    """
    theirs = {name: module for name, module in model.named_modules() if isinstance(module, CondConv2d)}
    if not theirs:
        raise UserError(f"this {type(model).__name__} has no timm.layers.CondConv2d: dynamize() is for static networks")
    for name, conv in theirs.items():
        if conv.bias is not None:
            raise UserError(f"{name} mixes its biases as well, which CondConv here does not")
    return replaced(model, {conv: _adopted(conv) for conv in theirs.values()})


@torch.no_grad()
def _adopted(conv: CondConv2d) -> RoutedCondConv2d:
    new = RoutedCondConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=0 if conv.dynamic_padding else conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=False,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
        num_kernels=conv.num_experts,
        pad_like_tensorflow=conv.dynamic_padding,
    )
    new.weight.copy_(conv.weight.reshape(new.weight.shape))
    new.weight.requires_grad_(conv.weight.requires_grad)
    return new.train(conv.training)
