"""Oriented convolution: one kernel in several rotations, and the strongest answer."""

from __future__ import annotations

from torch import Tensor

from ..remaking import Remaking
from ..rotation import rotation_matrices, turned
from .base import DynamicConv
from .heads import NoAttention


class _ORConv(Remaking, DynamicConv):
    """A convolution by R rotations of one kernel, pooled over the rotations; drop-in for ``nn.ConvNd``.

    ``y = max_r conv(x, rot_r W) + bias``. The rotations are those of `rotation.rotate`: in the plane (in three
    dimensions that of the last two axes), exact for multiples of 90 degrees, bilinear between. With R = 4, and strides
    that fit the padded size, equal strides, paddings and dilations in the plane, a rotation of the input by 90 degrees
    rotates the output and changes nothing else; R = 2 does so for 180 degrees.

    A mean over the outputs is the output of the mean kernel, which is how ``pool='mean'`` is computed: at the cost of a
    static convolution, and with kernels that have no direction left. A kernel of a single tap is its own rotation, and
    is convolved once.

    There is no attention: the choice among the rotations is the maximum itself, at each position. There are no
    parameters beyond the static convolution's either. `load_static` takes its weights over, but the network does not
    compute the same afterwards: the maximum over rotations is at least the static output, hence ``preserves_static``
    is false.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``. The kernel must be square in the rotated plane, unless R = 2.
        rotations: R, one of 2, 4 and 8. By default 4, and in one dimension 2: there the only rotations are identity
            and reversal, and more cannot be asked for.
        pool: How the outputs of the rotations become one, ``'max'`` or ``'mean'``.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does, for another `pool`, or for rotations that the kernel does not have.

    Source: Bhati and Sherawat, "Comprehensive Study Dynamic CNN", section 2.1.5 ("rotated convolutional kernels") and
    section 5 ("orientation pooling"). The text gives no equation; this is our reading.
    """

    preserves_static = False
    remade = ("turns",)

    def __init__(self, *conv, rotations: int | None = None, pool: str = "max", **conv_options) -> None:
        super().__init__(*conv, num_kernels=1, **conv_options)
        if pool not in ("max", "mean"):
            raise ValueError(f"pool must be 'max' or 'mean', got {pool!r}")
        self.rotations = (2 if self.dims == 1 else 4) if rotations is None else rotations
        self.pool, self.combine = pool, "max" if pool == "max" else "sum"
        self.attention = NoAttention()
        turns = self._turns()
        self.register_buffer("turns", None if turns is None else turns.to(self.weight), persistent=False)

    def _turns(self) -> Tensor | None:
        """What is multiplied onto the taps, ``[R, taps, taps]``, for the mean one matrix; nothing for one tap."""
        matrices = rotation_matrices(self.kernel_size, self.rotations)
        if matrices.shape[-1] == 1:
            return None
        return matrices if self.pool == "max" else matrices.mean(0, keepdim=True)

    def remake(self, name: str, before: Tensor | None) -> Tensor:
        """The matrices are made anew after every cast, which would keep the old rounding."""
        # Not as the weight: where that is pruned or parametrized, it may be stale until the next forward.
        return self._turns().to(self.turns.dtype)

    @property
    def kernels(self) -> Tensor:
        """The rotated kernels, ``[R, C_out, C_in / groups, *kernel_size]``, or the one that they come down to."""
        return self.stacked if self.turns is None else turned(self.weight, self.turns.to(self.weight.dtype))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rotations={self.rotations}, pool='{self.pool}'"


class ORConv1d(_ORConv):
    __doc__ = _ORConv.__doc__
    dims = 1


class ORConv2d(_ORConv):
    __doc__ = _ORConv.__doc__
    dims = 2


class ORConv3d(_ORConv):
    __doc__ = _ORConv.__doc__
    dims = 3
