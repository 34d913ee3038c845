"""Adaptive attention-driven dynamic convolution: kernel attention from local features at sampled positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import Attention
from ..remaking import Remaking
from .base import DynamicConv
from .heads import Tempered, bottleneck, normed, reset_mixing
from .sampling import SAMPLINGS, sampled_patches

SEED = 0  # of the positions used outside training


def fixed_positions(sets: int, points: int) -> Tensor:
    """The positions used outside training, ``[sets, points]``."""
    # Single precision whatever the default is, and on the CPU, where the generator is.
    generator = torch.Generator().manual_seed(SEED)
    return torch.rand(sets, points, generator=generator, dtype=torch.float32, device="cpu")


class A2D2CAttention(Tempered):
    """Local features to kernel weights: ``pi = mean over sets of softmax(W_2 ReLU(BN(W_1 p)) / T)``.

    Args:
        conv: The convolution the attention is for.
        reduction: Bottleneck width as a part of the output channels; at least 16 channels.
        temperature: T, divides the logits.

    Source: A2D2C, eq. 5, with the bottleneck that its r = 1/16 and its parameter counts ask for.
    """

    def __init__(self, conv: DynamicConv, reduction: float, temperature: float) -> None:
        super().__init__(temperature, conv.weight.device)
        options = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        hidden = bottleneck(conv.out_channels, reduction, 16)
        self.squeeze = nn.Linear(conv.out_channels, hidden, bias=False, **options)
        self.norm = nn.BatchNorm1d(hidden, **options)
        self.logits = nn.Linear(hidden, conv.num_kernels, **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal, zero bias."""
        reset_mixing(self.squeeze, self.logits)
        self.norm.reset_parameters()

    def neutralise(self) -> float:
        """Nothing to do: K equal kernels mix to themselves under any softmax."""
        return 1.0

    def forward(self, p: Tensor) -> Attention:
        """Local features ``[B, C_out, sets]`` to the kernel attention ``[B, K]``."""
        z = F.relu(normed(self.norm, self.squeeze(p.mT).flatten(0, 1), batch=p.shape[0]))
        pi = self.cooled(self.logits(z)).softmax(1)
        return Attention(kernel=pi.unflatten(0, (-1, p.shape[2])).mean(1))


class _A2D2C(Remaking, DynamicConv):
    """Adaptive attention-driven dynamic convolution, drop-in for ``nn.ConvNd``.

    The feature maps of the K kernels are averaged over M sampled output positions, N times, and a small network turns
    each average into weights for the kernels (eq. 2 to 6), which are mixed and convolve the input (eq. 7). An average
    of a convolution's outputs is the kernel times the average of its input patches, so the K feature maps are never
    computed. The positions are random in training, from torch's own generator, and a fixed seeded set of the same
    size in eval mode.

    The paper leaves the shapes of the weight sets open. Here a set is one vector ``[C_out]``, the average over
    positions and kernels; a bottleneck of ``max(r C_out, 16)`` turns it into K logits, and the weights of the N sets
    are averaged. Of the readings tried it comes closest to the printed parameter counts, also to those of section 5.3.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``.
        num_kernels: K, the number of mixed kernels; the paper tries 4, 8, 12, 16.
        reduction: r, the width of the attention bottleneck as a part of `out_channels`; 1/16 on ImageNet, 0.1 on
            CIFAR-100.
        temperature: Divides the logits; the paper lowers it from 30 to 1 over the first 10 epochs.
        sampling: ``'random'``, ``'fixed'`` (the eval-mode positions always) or ``'none'`` (all positions).
        points: M, positions in a set.
        sets: N, the number of sets.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does, or for an unknown `sampling`.

    Source: Zhang et al., "A2D2C: Adaptive Attention-Driven Dynamic Convolution", sections 3.2 to 3.4.
    """

    remade = ("positions",)

    def __init__(
        self,
        *conv,
        num_kernels: int = 4,
        reduction: float = 1 / 16,
        temperature: float = 1.0,
        sampling: str = "random",
        points: int = 100,
        sets: int = 2,
        **conv_options,
    ) -> None:
        super().__init__(*conv, num_kernels=num_kernels, **conv_options)
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
        if points < 1 or sets < 1:
            raise ValueError(f"points and sets must be at least 1, got {points} and {sets}")
        self.sampling = sampling
        self.attention = A2D2CAttention(self, reduction, temperature)
        self.register_buffer("positions", fixed_positions(sets, points).to(self.weight.device))

    def remake(self, name: str, before: Tensor | None) -> Tensor:
        """The positions are never cast: in half precision they would be others."""
        return fixed_positions(*self.positions.shape) if before is None else before

    def attend(self, x: Tensor) -> Attention:
        """The kernel attention from the local features of ``[B, C_in, *S]``."""
        return self.attention(self.local_features(x))

    def local_features(self, x: Tensor) -> Tensor:
        """Averages of the K feature maps over kernels and sampled positions (eq. 2 to 4), ``[B, C_out, sets]``."""
        where = None
        if self.sampling != "none":
            random = self.training and self.sampling == "random"
            where = torch.rand_like(self.positions) if random else self.positions
        x, padding = self.pad(x)
        patches = sampled_patches(x, where, self.kernel_size, self.stride, padding, self.dilation)
        batch, sets = x.shape[0], patches.shape[-1]
        # One product a group for the whole batch: with a batch dimension, backward would make a kernel per sample.
        kernel = self.stacked.mean(0).reshape(self.groups, self.out_channels // self.groups, -1)
        columns = patches.reshape(batch, self.groups, kernel.shape[2], sets).permute(1, 2, 0, 3).flatten(2)
        features = (kernel @ columns).flatten(0, 1).reshape(self.out_channels, batch, sets)
        return features.transpose(0, 1)


class A2D2C1d(_A2D2C):
    __doc__ = _A2D2C.__doc__
    dims = 1


class A2D2C2d(_A2D2C):
    __doc__ = _A2D2C.__doc__
    dims = 2


class A2D2C3d(_A2D2C):
    __doc__ = _A2D2C.__doc__
    dims = 3
