"""Hard attention: filters, or slices of the kernel, switched on and off."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..budget import Budget
from ..functional import Attention
from .base import DynamicConv
from .heads import NoAttention, pooled

INITIAL = 0.01  # logits start in U(0, 0.01), just above the threshold: everything on (MetaDOCK)


def switched(zeta: Tensor, beta: float) -> Tensor:
    """``1[sigmoid(beta zeta) > 0.5]``, with the gradient of the sigmoid (straight through)."""
    soft = (beta * zeta).sigmoid()
    # The comparison of the logit: a small one's sigmoid rounds to one half.
    return (zeta > 0).to(soft.dtype) + (soft - soft.detach())


class InputMask(nn.Module):
    """One switch per filter and sample: ``f = 1[sigmoid(beta (W GAP(x) + b)) > 0.5]``.

    Args:
        conv: The convolution the attention is for.
        beta: Steepness of the sigmoid whose gradient is used.
        budget: Gets the mask and the logits of each training step.
    """

    def __init__(self, conv: DynamicConv, beta: float, budget: Budget) -> None:
        super().__init__()
        options = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        self.beta, self.budget = beta, budget
        self.logits = nn.Linear(conv.in_channels, conv.out_channels, **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Everything on, for any input."""
        nn.init.zeros_(self.logits.weight)
        nn.init.uniform_(self.logits.bias, 0.0, INITIAL)

    def neutralise(self) -> float:
        """Everything on."""
        self.reset_parameters()
        return 1.0

    def forward(self, x: Tensor) -> Attention:
        """``[B, C_in, *S]`` to the output attention ``[B, C_out]``, zeros and ones."""
        zeta = self.logits(pooled(x))
        return Attention(output=self.budget(switched(zeta, self.beta), zeta, zeta.shape[0]))


class _Hard(DynamicConv):
    """A convolution whose kernels are switched on and off, drop-in for ``nn.ConvNd``.

    With ``mask='input'`` each sample switches the filters, as the study's "dynamic selection ... based on the input".
    With ``mask='task'`` the mask is MetaDOCK's: ``W' = W * 1[sigmoid(beta zeta) > 0.5]`` for each 2-D slice of the
    kernel (or each filter), the same for all inputs; `prune` then makes the network physically smaller.

    The loss ``w1 (mean(mask) - budget)^2 + w2 |zeta|_1`` of each operator joins the backward pass by itself, whatever
    the trainer's loss is; see `Budget`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``.
        mask: ``'input'`` or ``'task'``.
        granularity: What ``mask='task'`` switches: ``'slice'`` (filter times input channel) or ``'filter'``.
        budget: Part of the mask that may be on.
        budget_weight: w1, reached linearly over the first `ramp` training steps.
        sparsity_weight: w2, of the sum of the logits' absolute values (per sample, where they depend on it).
        ramp: Training steps until w1 is reached.
        beta: Steepness of the sigmoid whose gradient is used.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does, or for arguments out of range.

    Source: Bhati and Sherawat, "Comprehensive Study Dynamic CNN", section 2.1.4, after Chavan et al., "Dynamic Kernel
    Selection for Improved Generalization and Memory Efficiency in Meta-learning" (MetaDOCK), CVPR 2022.
    """

    def __init__(
        self,
        *conv,
        mask: str = "input",
        granularity: str = "slice",
        budget: float = 0.5,
        budget_weight: float = 50.0,
        sparsity_weight: float = 1e-6,
        ramp: int = 1000,
        beta: float = 1.0,
        **conv_options,
    ) -> None:
        super().__init__(*conv, num_kernels=1, **conv_options)
        if mask not in ("input", "task") or granularity not in ("slice", "filter"):
            raise ValueError(f"mask is 'input' or 'task', granularity 'slice' or 'filter': {mask!r}, {granularity!r}")
        if not beta > 0:
            raise ValueError(f"beta must be positive, got {beta}")
        self.mask, self.beta = mask, beta
        limit = Budget(budget, budget_weight, sparsity_weight, ramp, device=self.weight.device)
        if mask == "input":
            self.attention = InputMask(self, beta, limit)
            return
        self.attention, self.budget = NoAttention(), limit
        slices = self.in_channels // self.groups if granularity == "slice" else 1
        shape = (self.out_channels, slices, *(1,) * self.dims)
        self.zeta = nn.Parameter(torch.empty(shape, device=self.weight.device, dtype=self.weight.dtype))
        nn.init.uniform_(self.zeta, 0.0, INITIAL)

    def reset_parameters(self) -> None:
        """As for any operator; of a task mask everything is on."""
        super().reset_parameters()
        if hasattr(self, "zeta"):  # not yet in the constructor, which sets the weight first
            nn.init.uniform_(self.zeta, 0.0, INITIAL)

    @property
    def kernels(self) -> Tensor:
        """The kernel, ``[1, C_out, C_in / groups, *kernel_size]``; under a task mask what is on of it."""
        return self.stacked * (self.zeta > 0) if self.mask == "task" else self.stacked

    def load_static(self, conv: nn.Module) -> None:
        """Takes over the weights of a static convolution, with everything on."""
        super().load_static(conv)
        if self.mask == "task":
            nn.init.uniform_(self.zeta, 0.0, INITIAL)

    def convolve(self, x: Tensor, attention: Attention, kernels: Tensor | None = None) -> Tensor:
        """The convolution; a task mask's gradient and budget come in here."""
        if kernels is None and self.mask == "task":
            kernels = self.stacked * self.budget(switched(self.zeta, self.beta), self.zeta)
        return super().convolve(x, attention, kernels)


class Hard1d(_Hard):
    __doc__ = _Hard.__doc__
    dims = 1


class Hard2d(_Hard):
    __doc__ = _Hard.__doc__
    dims = 2


class Hard3d(_Hard):
    __doc__ = _Hard.__doc__
    dims = 3
