"""What the attention heads of several operators share: pooling, a norm for pooled features, a temperature."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import Attention
from ..remaking import Remaking


def pooled(x: Tensor) -> Tensor:
    """Global average pooling, ``[B, C, *S]`` to ``[B, C]``."""
    dims = tuple(range(2, x.dim()))
    if x.dtype in (torch.float16, torch.bfloat16):
        return x.mean(dims)  # its sum would overflow
    # The gradient of a sum is a view, and that of a mean a whole map of its own.
    return x.sum(dims) / math.prod(x.shape[2:])


def normed(norm: nn.Module, x: Tensor, batch: int | None = None) -> Tensor:
    """Batch norm of pooled features that also trains on a batch of one.

    One value has no variance, and several of one input have not that of inputs: such a batch is normalised with the
    running statistics and leaves them alone. The published code of ODConv crashes there (its issues 11, 23 and 35). A
    function, and not a norm of its own: what trainers exchange a batch norm for
    (``SyncBatchNorm.convert_sync_batchnorm``) does the same.

    Args:
        norm: ``nn.BatchNorm1d``, or what was made of it: ``nn.SyncBatchNorm``, timm's split norm (of images alone).
        x: ``[N, C]``.
        batch: The number of inputs, where each has several of the N rows.
    """
    if norm.training and (x.shape[0] if batch is None else batch) == 1 and not _shared(norm):
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    if isinstance(norm, nn.BatchNorm2d):
        return norm(x[:, :, None, None]).flatten(1)
    return norm(x)


def _shared(norm: nn.Module) -> bool:
    """Whether other processes have values too."""
    together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return isinstance(norm, nn.SyncBatchNorm) and together


class Tempered(Remaking):
    """An attention head whose logits are divided by a temperature, a buffer that checkpoints hold.

    Source: Dynamic Convolution (CVPR 2020), section 3.3.
    """

    remade = ("temperature",)

    def __init__(self, temperature: float, device=None) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.initial = float(temperature)
        self.register_buffer("temperature", torch.tensor(self.initial, device=device))

    def cooled(self, logits: Tensor) -> Tensor:
        """The logits divided by the temperature."""
        # By a copy, which autograd may keep: the next forward of an annealing model changes the buffer.
        return logits / self.temperature.to(logits.dtype, copy=True)

    def remake(self, name: str, before: Tensor | None) -> Tensor:
        """Without a value, as coming from the meta device, the temperature is the first again."""
        return torch.tensor(self.initial, device="cpu") if before is None else before


def bottleneck(channels: int, reduction: float, least: int) -> int:
    """Width of an attention bottleneck.

    Raises:
        ValueError: If `reduction` is not positive.
    """
    if not reduction > 0:
        raise ValueError(f"reduction must be positive, got {reduction}")
    return max(int(channels * reduction), least)


def reset_mixing(squeeze: nn.Linear, head: nn.Linear) -> None:
    """Kaiming normal, zero bias: how the two layers start whose softmax mixes kernels."""
    for layer in (squeeze, head):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(head.bias)


class NoAttention(nn.Module):
    """No input-dependent factor at all."""

    def neutralise(self) -> float:
        """Nothing to do."""
        return 1.0

    def forward(self, x: Tensor) -> Attention:
        """``[B, C_in, *S]`` to nothing."""
        return Attention()
