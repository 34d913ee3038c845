"""Looking behind ``torch.compile``."""

from __future__ import annotations

from torch import nn


def bare(model: nn.Module) -> nn.Module:
    """The module that ``torch.compile(model)`` wraps, or `model` itself.

    Compiled code knows neither of the hooks nor of the modules that are put into a model later.
    """
    return getattr(model, "_orig_mod", model)
