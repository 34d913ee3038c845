"""The streamlined A2D2C: the outputs of the K kernels are mixed, not the kernels."""

from __future__ import annotations

from .a2d2c import _A2D2C


class _A2D2CPlus(_A2D2C):
    """A2D2C+, drop-in for ``nn.ConvNd``: ``y = sum_k pi_k * (W_k * x)``.

    By its eq. 8 this equals `A2D2C2d` with the same parameters: mixing outputs or kernels is a matter of execution,
    and execution is the engine's. The name is kept, because papers and configurations use it.

    Args, shape and errors: as `A2D2C2d`.

    Source: Zhang et al., "A2D2C: Adaptive Attention-Driven Dynamic Convolution", section 3.4, eq. 8.
    """


class A2D2CPlus1d(_A2D2CPlus):
    __doc__ = _A2D2CPlus.__doc__
    dims = 1


class A2D2CPlus2d(_A2D2CPlus):
    __doc__ = _A2D2CPlus.__doc__
    dims = 2


class A2D2CPlus3d(_A2D2CPlus):
    __doc__ = _A2D2CPlus.__doc__
    dims = 3
