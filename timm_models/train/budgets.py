"""The budget of hard attention, whose loss joins the backward pass without passing through the trainer."""

from __future__ import annotations

from typing import Any

from torch import nn

import dynconv_plugins as dc


def match_scale(model: nn.Module, scaler: Any, batches: int) -> None:
    """Makes the budgets' losses count as the trainer's own does in the forward that follows.

    Args:
        model: With hard operators: asking the scaler costs time.
        scaler: timm's ``NativeScaler``, which multiplies the loss by a factor that changes in the course of training,
            or None.
        batches: Over how many batches the update accumulates gradients; the loss is divided by it.
    """
    factor = 1.0 if scaler is None else scaler._scaler.get_scale()  # timm's wrapper shows it in no other way
    dc.set_loss_scale(model, factor / batches)
