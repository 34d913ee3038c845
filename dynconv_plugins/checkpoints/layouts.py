"""The published layouts, each a function that rewrites the entries of some operators into the form they have here.

Each takes the weights by the names of the model, changes that dictionary, and returns the entries that do not fit:
``{key: "shape there instead of shape here"}``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..convert import operators_in
from ..errors import UserError
from ..operators.base import DynamicConv
from ..operators.odconv import ODConvAttention
from .differences import instead

Weights = dict[str, Tensor]
_HEADS = ("channel_fc", "filter_fc", "spatial_fc", "kernel_fc")
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_PLAIN = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def published_odconv(weights: Weights, operators: dict[str, DynamicConv]) -> dict[str, str]:
    """The authors' ODConv: the kernels stacked in five dimensions, the attention's layers 1x1 convolutions.

    Its four heads are the rows of our one, c before f before s before a. Its temperature is no part of the state dict
    and is 1 from the tenth epoch on.
    """
    misfits = {}
    for name, op in operators.items():
        there, attention = f"{name}.attention.", op.attention
        if f"{there}fc.weight" not in weights or not isinstance(attention, ODConvAttention):
            continue
        weight = weights.pop(f"{name}.weight", None)
        if weight is not None:
            if weight.shape != op.stacked.shape:
                misfits[f"{name}.weight"] = instead(weight, op.stacked)
            weights[f"{name}.weight"] = weight.flatten(0, 1)
        squeeze = weights.pop(f"{there}fc.weight")
        weights[f"{there}squeeze.weight"] = squeeze.flatten(1)
        for entry in _NORM:
            if f"{there}bn.{entry}" in weights:
                weights[f"{there}norm.{entry}"] = weights.pop(f"{there}bn.{entry}")
        for entry in ("weight", "bias"):
            heads = [weights.pop(f"{there}{head}.{entry}", squeeze.new_empty(0)) for head in _HEADS]
            # Not the sum of their rows: other heads of the same number of rows in all would pass for these.
            sizes = tuple(len(head) for head in heads)
            if sizes != attention.sizes:
                rows = f"rows {list(sizes)} (c, f, s, a) instead of {list(attention.sizes)}"
                misfits[f"{there}logits.{entry}"] = rows
            weights[f"{there}logits.{entry}"] = torch.cat(
                [head.flatten(1) if head.dim() > 1 else head for head in heads if len(head)]
            )
        weights[f"{there}temperature"] = torch.ones(())
    return misfits


def timm_condconv(weights: Weights, operators: dict[str, DynamicConv]) -> dict[str, str]:
    """timm's CondConv: each kernel a row of a matrix, and one routing for all convolutions of a block.

    Raises:
        UserError: If the model's convolutions route by themselves. A block's routing sees the block's input, theirs
            their own, which is another function of another number of channels.
    """
    misfits = {}
    for name, op in operators.items():
        weight = weights.get(f"{name}.weight")
        if weight is None or weight.dim() != 2:
            continue
        if f"{name.rpartition('.')[0]}.routing_fn.weight" in weights and len(list(op.attention.parameters())):
            raise UserError(
                "timm's CondConv mixes the kernels of all convolutions of a block by one routing of the block's input; "
                f"in this model each ({name}, ...) routes by its own input, and no weights make the two equal: convert "
                "for timm_models.adopt_condconv(timm.create_model(NAME)), NAME being the source's"
            )
        wanted = (op.num_kernels, op.weight.numel() // op.num_kernels)
        if weight.shape == wanted:
            weights[f"{name}.weight"] = weight.reshape(op.weight.shape)
        else:
            misfits[f"{name}.weight"] = instead(weight, wanted)
    return misfits


def static(weights: Weights, operators: dict[str, DynamicConv]) -> dict[str, str]:
    """A static convolution's weights in place of an operator: the operator takes them over and starts as it."""
    misfits = {}
    for name, op in operators.items():
        own = {f"{name}.{key}" for key in op.state_dict()}
        there = {key for key in weights if key.startswith(f"{name}.")}
        bias = {f"{name}.bias"} if op.bias is not None else set()
        if own <= there or there != {f"{name}.weight"} | bias:
            continue
        conv = _PLAIN[op.dims](
            op.in_channels, op.out_channels, op.kernel_size, groups=op.groups, bias=op.bias is not None, device="meta"
        )
        trouble = {
            f"{name}.{entry}": instead(weights[f"{name}.{entry}"], parameter)
            for entry, parameter in conv.named_parameters()
            if weights[f"{name}.{entry}"].shape != parameter.shape
        }
        if not trouble:
            for entry in list(conv._parameters):
                if (value := weights.get(f"{name}.{entry}")) is not None:
                    setattr(conv, entry, nn.Parameter(value.to(op.weight), requires_grad=False))
            op.load_static(conv)
        misfits |= trouble
        weights |= {f"{name}.{key}": value for key, value in op.state_dict().items()}
    return misfits


def start_static(model: nn.Module, weights: Weights, prefix: str = "") -> None:
    """Lets a static network's weights start its dynamic twin, where `weights` holds those: before they are loaded.

    What does not fit stays as it is, for torch to refuse.

    Args:
        model: The twin.
        weights: Changed.
        prefix: Of the model's names in it.
    """
    given = dict(weights)
    misfits = static(weights, {f"{prefix}{name}": op for name, op in operators_in(model).items()})
    weights.update({key: given[key] for key in misfits})
