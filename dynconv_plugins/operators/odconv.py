"""Omni-dimensional dynamic convolution: attention over taps, input channels, filters and kernels."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import Attention
from .base import DynamicConv
from .heads import Tempered, bottleneck, normed, pooled


class ODConvAttention(Tempered):
    """The four attentions of one ODConv from the pooled input.

    ``z = ReLU(BN(W GAP(x)))``, then ``c, f, s = sigmoid(head(z) / T)`` and ``a = softmax(head(z) / T)``. The heads are
    one linear layer, its rows in the order c, f, s, a; there is no f for a depthwise convolution, no s for one tap and
    no a for one kernel.

    Args:
        conv: The convolution the attention is for.
        reduction: Bottleneck width as a part of the input channels; at least `min_channels` wide.
        temperature: T, divides the logits of all four.
        min_channels: Smallest bottleneck.

    Source: ODConv, eq. 2 and section 3.2; temperature from Dynamic Convolution (CVPR 2020), section 3.3.
    """

    def __init__(
        self,
        conv: DynamicConv,
        reduction: float = 1 / 16,
        temperature: float = 1.0,
        min_channels: int = 16,
    ) -> None:
        super().__init__(temperature, conv.weight.device)
        options = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        self.kernel_size, self.in_channels = conv.kernel_size, conv.in_channels
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        taps = math.prod(conv.kernel_size)
        self.sizes = (
            conv.in_channels,
            0 if depthwise else conv.out_channels,
            taps if taps > 1 else 0,
            conv.num_kernels if conv.num_kernels > 1 else 0,
        )
        hidden = bottleneck(conv.in_channels, reduction, min_channels)
        self.squeeze = nn.Linear(conv.in_channels, hidden, bias=False, **options)
        self.norm = nn.BatchNorm1d(hidden, **options)
        self.logits = nn.Linear(hidden, sum(self.sizes), **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal with each head's own fan-out, zero biases, as the published code."""
        nn.init.normal_(self.squeeze.weight, 0.0, math.sqrt(2.0 / self.squeeze.out_features))
        for rows in self.logits.weight.split(self.sizes):
            if len(rows):
                nn.init.normal_(rows.detach(), 0.0, math.sqrt(2.0 / len(rows)))
        nn.init.zeros_(self.logits.bias)
        self.norm.reset_parameters()

    def neutralise(self) -> float:
        """Makes the gates constant, and returns what their product multiplies the convolution by.

        The heads of c, f and s start at zero, where each gate is 1/2 for every input but still gets a gradient. The
        kernel head keeps its random start: K equal kernels mix to themselves under any softmax, and only different
        weights a_k give them different gradients.
        """
        gates = sum(self.sizes[:3])
        nn.init.zeros_(self.logits.weight.detach()[:gates])
        nn.init.zeros_(self.logits.bias.detach()[:gates])
        return 0.5 ** sum(size > 0 for size in self.sizes[:3])

    def forward(self, x: Tensor) -> Attention:
        """``[B, C_in, *S]`` to the four factors."""
        z = F.relu(normed(self.norm, self.squeeze(pooled(x))))
        gates, a = self.cooled(self.logits(z)).split((sum(self.sizes[:3]), self.sizes[3]), 1)
        c, f, s = gates.sigmoid().split(self.sizes[:3], 1)
        return Attention(
            kernel=a.softmax(1) if self.sizes[3] else None,
            spatial=s.reshape(-1, *self.kernel_size) if self.sizes[2] else None,
            input=c,
            output=f if self.sizes[1] else None,
        )


class _ODConv(DynamicConv):
    """Omni-dimensional dynamic convolution, drop-in for ``nn.ConvNd``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``.
        num_kernels: K, the number of mixed kernels; the paper's 1x and 4x.
        reduction: Width of the attention bottleneck as a part of `in_channels`, at least 16 channels.
        temperature: Divides all logits; the paper lowers it from 30 to 1 over the first 10 epochs.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does.

    Source: Li, Zhou, Yao, "Omni-Dimensional Dynamic Convolution", ICLR 2022, eq. 2.
    """

    def __init__(
        self,
        *conv,
        num_kernels: int = 1,
        reduction: float = 1 / 16,
        temperature: float = 1.0,
        **conv_options,
    ) -> None:
        super().__init__(*conv, num_kernels=num_kernels, **conv_options)
        self.attention = ODConvAttention(self, reduction, temperature)


class ODConv1d(_ODConv):
    __doc__ = _ODConv.__doc__
    dims = 1


class ODConv2d(_ODConv):
    __doc__ = _ODConv.__doc__
    dims = 2


class ODConv3d(_ODConv):
    __doc__ = _ODConv.__doc__
    dims = 3
