"""The budget of hard attention, whose loss joins the backward pass without passing through the trainer."""

from __future__ import annotations

from typing import Any

from torch import nn

from dynconv_plugins.budget import Budget


def budgets_in(model: nn.Module) -> list[Budget]:
    """Returns the budgets of a model's hard operators."""
    return [module for module in model.modules() if isinstance(module, Budget)]


def match_scale(budgets: list[Budget], scaler: Any, batches: int) -> None:
    """Makes the budgets' losses count as the trainer's own does in the forward that follows.

    Args:
        budgets: Of the model.
        scaler: timm's ``NativeScaler``, which multiplies the loss by a factor that changes in the course of training,
            or None.
        batches: Over how many batches the update accumulates gradients; the loss is divided by it.
    """
    if budgets:
        factor = 1.0 if scaler is None else scaler._scaler.get_scale()  # timm's wrapper shows it in no other way
        for budget in budgets:
            budget.loss_scale = factor / batches
