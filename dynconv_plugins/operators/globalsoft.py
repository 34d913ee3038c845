"""Global soft attention: one gate per channel, from the whole feature map."""

from __future__ import annotations

from torch import Tensor, nn

from ..functional import Attention
from .base import DynamicConv
from .heads import pooled


class GlobalSoftAttention(nn.Module):
    """``A = sigmoid(W GAP(F) + b)``, multiplied onto the feature map F that it was computed from.

    Args:
        conv: The convolution the attention is for.

    Source: Bhati and Sherawat, "Comprehensive Study Dynamic CNN", eq. 2 and 3. F is the map that enters the
    convolution ("the full range of the input feature map"), and one fully connected layer makes the gate.
    """

    def __init__(self, conv: DynamicConv) -> None:
        super().__init__()
        options = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        self.gate = nn.Linear(conv.in_channels, conv.in_channels, **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform, zero bias."""
        nn.init.xavier_uniform_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def neutralise(self) -> float:
        """Makes the gate constant, and returns its value."""
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        return 0.5

    def forward(self, x: Tensor) -> Attention:
        """``[B, C_in, *S]`` to the input attention ``[B, C_in]``."""
        return Attention(input=self.gate(pooled(x)).sigmoid())


class _GlobalSoft(DynamicConv):
    """A convolution of a globally gated feature map, drop-in for ``nn.ConvNd``.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does.

    Source: Bhati and Sherawat, "Comprehensive Study Dynamic CNN", section 2.1.3.
    """

    def __init__(self, *conv, **conv_options) -> None:
        super().__init__(*conv, num_kernels=1, **conv_options)
        self.attention = GlobalSoftAttention(self)


class GlobalSoft1d(_GlobalSoft):
    __doc__ = _GlobalSoft.__doc__
    dims = 1


class GlobalSoft2d(_GlobalSoft):
    __doc__ = _GlobalSoft.__doc__
    dims = 2


class GlobalSoft3d(_GlobalSoft):
    __doc__ = _GlobalSoft.__doc__
    dims = 3
