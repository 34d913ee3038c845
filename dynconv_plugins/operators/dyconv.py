"""Dynamic convolution: kernels mixed by a softmax over them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import Attention
from .base import DynamicConv
from .heads import Tempered, bottleneck, pooled, reset_mixing


class DyConvAttention(Tempered):
    """``a = softmax(W_2 ReLU(W_1 GAP(x)) / T)``, weights that sum to one over the kernels.

    Args:
        conv: The convolution the attention is for.
        reduction: Bottleneck width as a part of the input channels.
        temperature: T, divides the logits.

    Source: Dynamic Convolution (CVPR 2020), sections 3.2 and 3.3.
    """

    def __init__(self, conv: DynamicConv, reduction: float = 1 / 4, temperature: float = 1.0) -> None:
        super().__init__(temperature, conv.weight.device)
        options = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        hidden = bottleneck(conv.in_channels, reduction, 1)
        self.squeeze = nn.Linear(conv.in_channels, hidden, bias=False, **options)
        self.logits = nn.Linear(hidden, conv.num_kernels, **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal, zero bias."""
        reset_mixing(self.squeeze, self.logits)

    def neutralise(self) -> float:
        """Nothing to do: K equal kernels mix to themselves under any softmax.

        The head keeps its random start, because only different weights give the kernels different gradients.
        """
        return 1.0

    def forward(self, x: Tensor) -> Attention:
        """``[B, C_in, *S]`` to the kernel attention ``[B, K]``."""
        return Attention(kernel=self.cooled(self.logits(F.relu(self.squeeze(pooled(x))))).softmax(1))


class _DyConv(DynamicConv):
    """Dynamic convolution with attention over kernels, drop-in for ``nn.ConvNd``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``.
        num_kernels: K, the number of mixed kernels.
        reduction: Width of the attention bottleneck as a part of `in_channels`.
        temperature: Divides the logits; the paper lowers it from 30 to 1 over the first 10 epochs.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does.

    Source: Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020, eq. 2 and 3.
    """

    def __init__(
        self,
        *conv,
        num_kernels: int = 4,
        reduction: float = 1 / 4,
        temperature: float = 1.0,
        **conv_options,
    ) -> None:
        super().__init__(*conv, num_kernels=num_kernels, **conv_options)
        self.attention = DyConvAttention(self, reduction, temperature)


class DyConv1d(_DyConv):
    __doc__ = _DyConv.__doc__
    dims = 1


class DyConv2d(_DyConv):
    __doc__ = _DyConv.__doc__
    dims = 2


class DyConv3d(_DyConv):
    __doc__ = _DyConv.__doc__
    dims = 3
