"""What the networks here can do beside what timm's can: load more kinds of weights, and say what their masks do."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from timm.models import adapt_input_conv
from torch import Tensor, nn

import dynconv_plugins as dc
from dynconv_plugins.budget import Budget
from dynconv_plugins.checkpoints import layouts
from dynconv_plugins.operators.base import DynamicConv

_logger = logging.getLogger("timm_models")


class DynamicModel(nn.Module):
    """Base of the networks here, before timm's class.

    A network with ``hard`` attention trains with its budget loss under any trainer, and logs (``timm_models``, INFO)
    the mask rate and that loss of its last training step whenever it is switched from training to evaluation. The loss
    does not pass through the trainer, so what a trainer does to its own loss must be done to the budget's as well. The
    trainer of this package does. With timm's ``train.py`` give ``--amp-dtype bfloat16`` with ``--amp``, because
    float16's gradient scaler would divide the budget's gradient down to nothing; and with ``--grad-accum-steps N``
    divide ``budget_weight`` and ``sparsity_weight`` by N.
    """

    def train(self, mode: bool = True) -> DynamicModel:
        """Switches between training and evaluation."""
        if not mode:
            _report(self)
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of any module; if not `strict`, a static network's weights start its dynamic twin, computing the same."""
        if not strict:
            metadata, state_dict = getattr(state_dict, "_metadata", None), OrderedDict(state_dict)
            state_dict._metadata = metadata
            layouts.start_static(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A trained checkpoint is validated, exported and fine-tuned by commands that know nothing of its schedule.
        key = f"{prefix}annealing_step"
        if "annealing_step" in self._buffers:
            state_dict.setdefault(key, self.annealing_step)
        else:
            state_dict.pop(key, None)
        _adapt_stem(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _report(model: nn.Module) -> None:
    if dist.is_available() and dist.is_initialized() and dist.get_rank():
        return
    # Not the model's own flag: a compiled model has set that one already.
    if not any(module.training for module in model.modules() if isinstance(module, Budget)):
        return
    numbers = dc.budget(model)
    # Neither number is in a checkpoint: a model that was only built or loaded has nothing to say.
    if numbers.get("budget_loss"):
        _logger.info(f"hard: mask rate {numbers['mask_rate']:.3f}, budget loss {numbers['budget_loss']:.3g}")


def _adapt_stem(model: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    """Lets the attention of a dynamic stem follow the kernel, which timm has adapted to another ``in_chans``."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    name, channels = cfg.get("first_conv"), (cfg.get("input_size") or (3,))[0]
    stem = dict(model.named_modules()).get(name)
    if not isinstance(stem, DynamicConv) or stem.in_channels == channels:
        return
    own = {f"{prefix}{name}.{key}": value for key, value in stem.state_dict().items()}
    weight = state_dict.get(f"{prefix}{name}.weight")
    if weight is None or weight.shape != stem.weight.shape:
        return
    differ = [key for key, value in own.items() if key in state_dict and state_dict[key].shape != value.shape]
    if all(_takes_pooled_input(state_dict[key], own[key], channels) for key in differ):
        for key in differ:
            # A linear layer of the pooled image is a 1x1 convolution of it.
            given = state_dict[key][..., None, None]
            state_dict[key] = adapt_input_conv(stem.in_channels, given, channels)[..., 0, 0]
        return
    kept = {f"{prefix}{name}.weight", f"{prefix}{name}.bias"}
    state_dict.update({key: value for key, value in own.items() if key not in kept})
    _logger.warning(f"Unable to convert pretrained attention of {name} to other in_chans, using random init for it.")


def _takes_pooled_input(given: Tensor, own: Tensor, channels: int) -> bool:
    return given.dim() == 2 == own.dim() and given.shape[0] == own.shape[0] and given.shape[1] == channels
