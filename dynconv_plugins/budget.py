"""The budget of hard attention: a loss that reaches any trainer, because it joins the backward pass by itself."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .problem import transforming
from .recompute import backward_pass
from .remaking import Remaking

_FIRST = {"step": 0, "mask_rate": 1.0, "budget_loss": 0.0, "loss_scale": 1.0}


class _Joined(torch.autograd.Function):
    """The identity on the first argument; its backward also starts the gradient of the second, a scalar loss."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, loss: Tensor, scale: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, *ctx.saved_tensors, None


class Budget(Remaking):
    """Adds ``w1 (mean(mask) - budget)^2 + w2 |zeta|_1`` to whatever loss the network is trained with.

    The gradient is added where the mask is used, so no trainer has to know of it. It is that of a loss which the
    trainer neither scales nor divides: with a float16 gradient scaler give its value to `set_loss_scale` before each
    forward (bfloat16 needs nothing), and when gradients are accumulated over n batches n times less.

    Where several processes train one model the mean is that over all their samples, as one process with the whole
    batch would have it: each training forward then exchanges one number per operator, so all ranks have to run it.
    ``nn.DataParallel`` adds up what each of its n devices contributes: once, ``set_loss_scale(model, 1 / n)``.

    Reentrant activation checkpointing has no gradient in its forward, so that the ramp does not advance there: use
    ``use_reentrant=False``.

    Args:
        budget: Part of the mask that may be on, between 0 and 1.
        weight: w1, reached linearly over `ramp` training forwards.
        sparsity: w2.
        ramp: Training forwards; the counter is a buffer, so that resuming continues.

    Attributes:
        mask_rate: Part of the mask that was on in the last training forward.
        budget_loss: The loss of the last training forward.
        loss_scale: What the trainer multiplies its own loss by; a tensor, so that nothing is compiled again for it.

    Source: MetaDOCK (CVPR 2022), its loss.
    """

    remade = tuple(_FIRST)

    def __init__(self, budget: float, weight: float, sparsity: float, ramp: int, device=None) -> None:
        super().__init__()
        if not 0 <= budget <= 1 or weight < 0 or sparsity < 0 or ramp < 0:
            raise ValueError(
                f"budget lies in 0..1, weights and ramp are not negative: got {budget}, {weight}, {sparsity}, {ramp}"
            )
        self.target, self.weight, self.sparsity, self.ramp = budget, weight, sparsity, ramp
        for name, first in _FIRST.items():
            self.register_buffer(name, torch.tensor(first, device=device), persistent=name == "step")

    def remake(self, name: str, before: Tensor | None) -> Tensor:
        """Without values, as coming from the meta device, all begins anew."""
        return torch.tensor(_FIRST[name], device="cpu") if before is None else before

    def forward(self, mask: Tensor, zeta: Tensor, samples: int = 1) -> Tensor:
        """Returns `mask`, in training with the loss attached.

        Args:
            mask: Zeros and ones of any shape, differentiable with respect to `zeta`.
            zeta: The logits behind it.
            samples: Over how many samples the norm of `zeta` is averaged.
        """
        if not (self.training and torch.is_grad_enabled() and mask.requires_grad):
            return mask
        # Activation checkpointing repeats a forward, which has been counted.
        step = self.step - 1 if backward_pass() >= 0 else self.step
        part = (step / self.ramp).clamp(0.0, 1.0) if self.ramp else 1.0
        # A batch without samples has no mean; the other processes wait for its number all the same.
        rate = self._shared(mask.float().mean() if mask.numel() else mask.float().sum())
        norm = zeta.float().abs().sum() / max(samples, 1)
        loss = self.weight * part * (rate - self.target) ** 2 + self.sparsity * norm
        self._note(step=step + 1, mask_rate=rate.detach(), budget_loss=loss.detach())
        # By a copy, which autograd may keep: the next forward may come under another scale.
        return _Joined.apply(mask, loss, self.loss_scale.to(loss.dtype, copy=True))

    def _note(self, **values: Tensor) -> None:
        """Sets buffers."""
        if transforming():
            return  # a function's transform must leave no traces
        for name, value in values.items():
            if torch.compiler.is_compiling():
                setattr(self, name, value)  # a new tensor: a compiled backward may read the old step once more
            else:
                getattr(self, name).copy_(value)  # a replica of data parallelism shares the memory, not the attribute

    def _shared(self, rate: Tensor) -> Tensor:
        """The mean of `rate` over the processes, with the gradient of this one's: the trainer averages gradients."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return rate
        if backward_pass() >= 0:
            # Repeated by activation checkpointing, amid the exchange of gradients: what the forward found still holds.
            mean = self.mask_rate
        else:
            mean = rate.detach() / dist.get_world_size()
            dist.all_reduce(mean)
        return mean + (rate - rate.detach())


def budget(model: nn.Module) -> dict[str, float]:
    """Mask rate and budget loss of the last training forward, averaged over the hard operators.

    Empty without any, and on the meta device, where nothing has a value.
    """
    found = _budgets(model)
    if not found or found[0].step.is_meta:
        return {}
    return {
        name: torch.stack([getattr(module, name) for module in found]).mean().item()
        for name in ("mask_rate", "budget_loss")
    }


def set_loss_scale(model: nn.Module, scale: float) -> None:
    """Tells the hard operators what the trainer multiplies its own loss by, for the forwards that follow.

    Args:
        model: With hard operators or without.
        scale: A float16 gradient scaler's value, divided by the number of batches that gradients are accumulated over
            and by that of the devices of ``nn.DataParallel``.
    """
    for module in _budgets(model):
        module.loss_scale.fill_(scale)


def _budgets(model: nn.Module) -> list[Budget]:
    return [module for module in model.modules() if isinstance(module, Budget)]
