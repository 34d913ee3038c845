"""Frequency dynamic convolution: the frequency bands of one kernel, mixed by a softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..functional import Attention
from ..remaking import Remaking
from .base import DynamicConv
from .dyconv import DyConvAttention


class FDConvAttention(DyConvAttention):
    """``a = K softmax(W_2 ReLU(W_1 GAP(x)) / T)``, weights that average to one over the bands.

    Args:
        conv: The convolution the attention is for.
        reduction: Bottleneck width as a part of the input channels.
        temperature: T, divides the logits.

    Source: Dynamic Convolution (CVPR 2020), section 3; the factor K is ours, that the bands start as the kernel.
    """

    def reset_parameters(self) -> None:
        """As Dynamic Convolution's, but with every weight 1: a new operator has all bands of its kernel, too."""
        super().reset_parameters()
        self.neutralise()

    def neutralise(self) -> float:
        """Makes every weight 1, with which the bands are the kernel again; they differ, and so do their gradients."""
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)
        return 1.0

    def forward(self, x: Tensor) -> Attention:
        """``[B, C_in, *S]`` to the kernel attention ``[B, K]``."""
        return Attention(kernel=super().forward(x).kernel * self.logits.out_features)


def frequency_bands(rows: int, columns: int, count: int) -> Tensor:
    """The band of each Fourier coefficient of a real map, from low to high frequency, in equal parts.

    Coefficients are sorted by ``|(u, v)|``, the length of their frequency; those of one length stay together, in the
    lower band, conjugate pairs among them: the inverse transform of a band is real.

    Args:
        rows, columns: The size of the map.
        count: K.

    Returns:
        Numbers below K, ``[rows, columns // 2 + 1]``, for the half of the spectrum that ``torch.fft.rfft2`` gives.
    """
    u, v = (torch.minimum(n, n.flip(0) + 1) for n in (torch.arange(size, device="cpu") for size in (rows, columns)))
    # Over a common denominator, in whole numbers: equal lengths compare equal.
    lengths = (u[:, None] * columns) ** 2 + (v * rows) ** 2
    last = [math.ceil(band * lengths.numel() / count) - 1 for band in range(1, count)]
    edges = lengths.flatten().sort().values[last]
    return torch.bucketize(lengths[:, : columns // 2 + 1].contiguous(), edges).to(torch.uint8)


class _FDConv(Remaking, DynamicConv):
    """Convolution by frequency bands of one kernel, mixed by an attention; drop-in for ``nn.ConvNd``.

    The kernel is laid out as a map of ``C_in k_1 .. k_(d-1)`` rows and ``C_out k_d`` columns (in two dimensions
    ``k C_in x k C_out``), whose Fourier coefficients fall into K bands of equal size from low to high frequency. The
    inverse transforms of the bands are K kernels with no frequency in common. Their sum is the kernel: K of them take
    the parameters of one.

    This is the paper's Fourier disjoint weight. Of the paper's other two parts there is nothing here: neither kernel
    spatial modulation (a factor for every weight) nor frequency band modulation (factors per position). Otherwise
    different: the parameter is the kernel and not its spectrum, the same map seen from the other side, so that it
    starts and converts as a static one; the attention is that of Dynamic Convolution, scaled to start at 1 for each
    band; K is 4 instead of 64; and with `groups` the rows are those of one group.

    The transforms are of the kernel and not of the input: they cost the same for every batch, a folded network
    has none, and `complexity` does not count them.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``.
        num_kernels: K, the number of bands, up to 256.
        reduction: Width of the attention bottleneck as a part of `in_channels`.
        temperature: Divides the logits.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does, or for more bands than 256.

    Source: Chen et al., "Frequency Dynamic Convolution for Dense Image Prediction", CVPR 2025, on the
    Fourier disjoint weight.
    """

    remade = ("bands",)

    def __init__(
        self,
        *conv,
        num_kernels: int = 4,
        reduction: float = 1 / 4,
        temperature: float = 1.0,
        **conv_options,
    ) -> None:
        super().__init__(*conv, num_kernels=1, **conv_options)
        if not 1 <= num_kernels <= 256:
            raise ValueError(f"num_kernels must be at least 1 and at most 256, got {num_kernels}")
        self.num_kernels = num_kernels
        self.attention = FDConvAttention(self, reduction, temperature)
        # Not of whole numbers: an average of the buffers over training steps would make 2 of 2.9999998.
        self.register_buffer("bands", self._bands().to(self.weight.device), persistent=False)

    @property
    def stacked(self) -> Tensor:
        """The one stored kernel, ``[1, C_out, C_in / groups, *kernel_size]``."""
        return self.weight[None]

    @property
    def kernels(self) -> Tensor:
        """The inverse transforms of the K bands, ``[K, C_out, C_in / groups, *kernel_size]``."""
        plane = self._plane()
        plane = plane if plane.dtype == torch.float64 else plane.float()  # half precision has no such transform
        numbers = torch.arange(self.num_kernels, device=plane.device)
        masks = (self.bands.round() == numbers[:, None, None]).to(plane.dtype)
        planes = torch.fft.irfft2(torch.fft.rfft2(plane) * masks, s=plane.shape).to(self.weight.dtype)
        rows, columns = self.weight.shape[1:-1], (self.out_channels, self.kernel_size[-1])
        return planes.unflatten(2, columns).unflatten(1, rows).movedim(-2, 1)

    def _plane(self) -> Tensor:
        """The stored kernel as the map that is transformed."""
        return self.weight.movedim(0, -2).flatten(0, -3).flatten(1)

    def _bands(self) -> Tensor:
        return frequency_bands(*self._plane().shape, self.num_kernels).float()

    def remake(self, name: str, before: Tensor | None) -> Tensor:
        """The bands follow from the sizes alone."""
        return self._bands() if before is None else before


class FDConv1d(_FDConv):
    __doc__ = _FDConv.__doc__
    dims = 1


class FDConv2d(_FDConv):
    __doc__ = _FDConv.__doc__
    dims = 2


class FDConv3d(_FDConv):
    __doc__ = _FDConv.__doc__
    dims = 3
