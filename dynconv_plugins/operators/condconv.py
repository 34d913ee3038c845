"""Conditionally parameterised convolution: kernels mixed with independent sigmoid weights."""

from __future__ import annotations

from torch import Tensor, nn

from ..functional import Attention
from .base import DynamicConv
from .heads import pooled


class CondConvAttention(nn.Module):
    """``a = sigmoid(W GAP(x) + b)``, one weight per kernel, not normalised.

    Args:
        conv: The convolution the attention is for.

    Source: CondConv (NeurIPS 2019), section 3.1.
    """

    def __init__(self, conv: DynamicConv) -> None:
        super().__init__()
        options = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        self.routing = nn.Linear(conv.in_channels, conv.num_kernels, **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform, zero bias."""
        nn.init.xavier_uniform_(self.routing.weight)
        nn.init.zeros_(self.routing.bias)

    def neutralise(self) -> Tensor:
        """Makes the routing constant and returns the sum of its weights, which all kernels together are scaled by.

        The biases are random: K equal kernels with equal weights would get equal gradients and never differ.
        """
        nn.init.zeros_(self.routing.weight)
        nn.init.normal_(self.routing.bias)
        return self.routing.bias.detach().sigmoid().sum()

    def forward(self, x: Tensor) -> Attention:
        """``[B, C_in, *S]`` to the kernel attention ``[B, K]``."""
        return Attention(kernel=self.routing(pooled(x)).sigmoid())


class _CondConv(DynamicConv):
    """Conditionally parameterised convolution, drop-in for ``nn.ConvNd``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``.
        num_kernels: K, the number of mixed kernels.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does.

    Source: Yang, Bender, Le, Ngiam, "CondConv: Conditionally Parameterized Convolutions for Efficient Inference",
    NeurIPS 2019, eq. 1.
    """

    def __init__(self, *conv, num_kernels: int = 8, **conv_options) -> None:
        super().__init__(*conv, num_kernels=num_kernels, **conv_options)
        self.attention = CondConvAttention(self)


class CondConv1d(_CondConv):
    __doc__ = _CondConv.__doc__
    dims = 1


class CondConv2d(_CondConv):
    __doc__ = _CondConv.__doc__
    dims = 2


class CondConv3d(_CondConv):
    __doc__ = _CondConv.__doc__
    dims = 3
