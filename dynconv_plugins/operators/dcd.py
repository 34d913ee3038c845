"""Dynamic convolution decomposition: a scaled static kernel and a low-rank residual that mixes latent channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import Attention
from .base import STATIC, DynamicConv
from .heads import normed, pooled

_POOL = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


class DCDFactors(NamedTuple):
    """What varies with the input.

    Attributes:
        output: The diagonal L(x), ``[B, C_out]``, between 0 and 2.
        mixing: Phi(x), ``[B, l, l]``, mixes the latent channels.
    """

    output: Tensor
    mixing: Tensor


class Summed(nn.Module):
    """The sum of two branches: what a folded `DCD2d` with groups becomes.

    Args:
        main, beside: Modules of the same input and output shapes.
    """

    def __init__(self, main: nn.Module, beside: nn.Module) -> None:
        super().__init__()
        self.main, self.beside = main, beside

    def forward(self, x: Tensor) -> Tensor:
        """Sums what the branches make of `x`."""
        return self.main(x) + self.beside(x)


class DCDAttention(nn.Module):
    """``z = ReLU(W GAP(x))``, then ``L = hard sigmoid(W_L z)`` in 0..2 and ``Phi = W_Phi z``.

    Args:
        conv: The convolution the attention is for.
        latent: l, the number of latent channels.
        grid: Cells per dimension that the input is pooled to.

    Source: DCD (ICLR 2021), sections 4.1 and 4.2. The squeeze is a sixteenth of the larger of descriptor and l^2.
    """

    def __init__(self, conv: DynamicConv, latent: int, grid: int) -> None:
        super().__init__()
        options = {"device": conv.weight.device, "dtype": conv.weight.dtype, "bias": False}
        self.dims, self.latent, self.grid = conv.dims, latent, grid
        descriptor = conv.in_channels * grid**conv.dims
        hidden = max(descriptor // 16, latent**2 // 16, 4)
        self.squeeze = nn.Linear(descriptor, hidden, **options)
        self.scale = nn.Linear(hidden, conv.out_channels, **options)
        self.mixing = nn.Linear(hidden, latent**2, **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal; the diagonal starts near one."""
        nn.init.kaiming_normal_(self.squeeze.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.mixing.weight, nonlinearity="linear")
        nn.init.normal_(self.scale.weight, 0.0, 0.01)

    def neutralise(self) -> float:
        """Makes the diagonal one for every input."""
        nn.init.zeros_(self.scale.weight)
        return 1.0

    def forward(self, x: Tensor) -> DCDFactors:
        """``[B, C_in, *S]`` to the diagonal and the mixing matrix."""
        cells = pooled(x) if self.grid == 1 else _POOL[self.dims](x, self.grid).flatten(1)
        z = F.relu(self.squeeze(cells))
        # Twice the hard sigmoid, whose gradient torch cannot differentiate again.
        mixing = self.mixing(z).unflatten(1, (self.latent, self.latent))
        return DCDFactors(output=(self.scale(z) / 3 + 1).clamp(0, 2), mixing=mixing)


class _DCD(DynamicConv):
    """Dynamic convolution decomposition, drop-in for ``nn.ConvNd``; no per-sample kernel is ever made.

    ``y = L(x) * conv(x, W_0) + P (BN_2(Phi(x) q) + q)`` with ``q = BN_1(Q x)`` at the tap in the middle of the kernel.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``. The low-rank part is dense whatever `groups` is.
        grid: Cells per dimension of the pooled descriptor. The paper takes 2 (x2) in basic blocks and 1 in bottlenecks;
            `dynamize` does as the paper, ``None`` outside of it is 1.
        latent: l, latent channels; the paper's ``int(sqrt(C_in * cells))`` if not given.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does.

    Source: Li et al., "Revisiting Dynamic Convolution via Matrix Decomposition", ICLR 2021, eq. 4 and 5.
    """

    def __init__(self, *conv, grid: int | None = None, latent: int | None = None, **conv_options) -> None:
        super().__init__(*conv, num_kernels=1, **conv_options)
        grid = 1 if grid is None else grid
        if grid < 1 or (latent is not None and latent < 1):
            raise ValueError(f"grid and latent must be at least 1, got {grid} and {latent}")
        latent = latent or math.isqrt(self.in_channels * grid**self.dims)
        options = {"device": self.weight.device, "dtype": self.weight.dtype}
        self.attention = DCDAttention(self, latent, grid)
        self.q = nn.Linear(self.in_channels, latent, bias=False, **options)
        self.norm1, self.norm2 = nn.BatchNorm1d(latent, **options), nn.BatchNorm1d(latent, **options)
        self.p = nn.Linear(latent, self.out_channels, bias=False, **options)
        for layer in (self.q, self.p):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="linear")

    @classmethod
    def options_in(cls, block: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Pools to two cells per dimension in a basic block, which is one without 1x1 convolutions."""
        return {"grid": 2} if block and all(math.prod(conv.kernel_size) > 1 for conv in block.values()) else {}

    def load_static(self, conv: nn.Module) -> None:
        """Takes over the weights of a static convolution; the low-rank part starts at zero, its input does not."""
        super().load_static(conv)
        nn.init.zeros_(self.p.weight)

    def convolve(self, x: Tensor, attention: DCDFactors, kernels: Tensor | None = None) -> Tensor:
        """The scaled static convolution and the low-rank residual."""
        y = super().convolve(x, Attention(output=attention.output), kernels)
        # Linear layers at each position: rows of channels, [B, positions, C].
        q = _normed_rows(self.norm1, self.q(self._middle(x, y).flatten(2).mT))
        residual = self.p(_normed_rows(self.norm2, q @ attention.mixing.to(q.dtype).mT) + q)
        return y + residual.mT.reshape(y.shape).to(y.dtype)

    def frozen(self, attention: DCDFactors) -> nn.Module:
        """One convolution; with groups, which the low-rank part knows none of, beside a narrow one that is summed up.

        Batch norms in eval mode are affine, and the residual is linear: its kernel lies at the tap in the middle, where
        zero padding leaves its bias, as here.
        """
        (scale1, shift1), (scale2, shift2) = (_affine(norm) for norm in (self.norm1, self.norm2))
        mix = scale2[:, None] * attention.mixing[0].to(scale2) + torch.eye(len(scale2)).to(scale2)
        narrow, widen = scale1[:, None] * self.q.weight, self.p.weight @ mix
        bias = widen @ shift1 + self.p.weight @ shift2
        bias = bias if self.bias is None else bias + self.bias
        main = self.stacked[0] * attention.output[0].to(scale2).reshape(-1, *(1,) * (self.dims + 1))
        if self.groups == 1:
            return self.static(main + self._at_middle(widen @ narrow), bias)
        sides = [(d * (k - 1) / 2,) * 2 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        # With the usual padding the middle tap sees the input itself.
        middle = self._pointwise(narrow, self.stride) if list(self._padding_sides()) == sides else None
        middle = middle or self.static(self._at_middle(narrow), None, groups=1)
        return Summed(self.static(main, bias), nn.Sequential(middle, self._pointwise(widen)))

    def _pointwise(self, matrix: Tensor, stride: int | tuple[int, ...] = 1) -> nn.Module:
        """The 1x1 convolution by `matrix`."""
        conv = STATIC[self.dims](matrix.shape[1], len(matrix), 1, stride, bias=False, device="meta")
        conv.weight = nn.Parameter(matrix.detach().reshape(*matrix.shape, *(1,) * self.dims))
        return conv.train(self.training)

    def _at_middle(self, matrix: Tensor) -> Tensor:
        """A kernel ``[rows, columns, *kernel_size]`` that is `matrix` at the middle tap and zero at the others."""
        kernel = matrix.new_zeros(*matrix.shape, *self.kernel_size)
        kernel[(..., *((k - 1) // 2 for k in self.kernel_size))] = matrix
        return kernel

    def _middle(self, x: Tensor, y: Tensor) -> Tensor:
        """The input under the middle tap for each position of the output `y`, ``[B, C_in, *S_out]``."""
        x, padding = self.pad(x)
        sides: list[int] = []
        for i in reversed(range(self.dims)):
            before = padding[i] - self.dilation[i] * ((self.kernel_size[i] - 1) // 2)
            length = (y.shape[2 + i] - 1) * self.stride[i] + 1
            sides += [before, length - x.shape[2 + i] - before]  # negative crops
        x = F.pad(x, sides) if any(sides) else x
        return x[(..., *(slice(None, None, s) for s in self.stride))]


def _normed_rows(norm: nn.Module, rows: Tensor) -> Tensor:
    return normed(norm, rows.flatten(0, 1)).reshape(rows.shape)


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies by and adds in eval mode."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - norm.running_mean * scale


class DCD1d(_DCD):
    __doc__ = _DCD.__doc__
    dims = 1


class DCD2d(_DCD):
    __doc__ = _DCD.__doc__
    dims = 2


class DCD3d(_DCD):
    __doc__ = _DCD.__doc__
    dims = 3
