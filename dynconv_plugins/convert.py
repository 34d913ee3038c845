"""Turning the convolutions of any model into dynamic ones, in place."""

from __future__ import annotations

from torch import nn

from . import registry
from .operators.base import DynamicConv, memory_format
from .placement import Where, block_of, convolutions, dims_of, select
from .surgery import replaced

# What a replacement has from the convolution it replaces.
_OF_THE_CONVOLUTION = {"in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias"}
_OF_THE_CONVOLUTION |= {"padding_mode", "device", "dtype"}


def operators_in(model: nn.Module) -> dict[str, DynamicConv]:
    """The dynamic convolutions of `model`, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, DynamicConv)}


def dynamize(
    model: nn.Module, name: str, where: Where | None = None, keep_weights: bool = True, **options
) -> nn.Module:
    """Replaces convolutions of `model` by a dynamic operator, in place.

    Args:
        model: Any model of ``nn.Conv1d``, ``2d`` or ``3d``; a single convolution is replaced and returned.
        name: The operator's short name, see `registry.names`.
        where: Which convolutions, see `placement.select`; by default the placement of the operator's paper.
        keep_weights: Copy the static weights into all K kernels and start the attention so that the network computes
            what it did; ``False`` starts from the operator's own random initialisation.
        options: The operator's own arguments, e.g. ``num_kernels=4``.

    Returns:
        The same model (or, for a single convolution, its replacement).

    Raises:
        UnknownName: If the operator, the placement or an argument of the operator is not known; the model is then as it
            was.
        ValueError: If a chosen convolution is parametrised (weight norm and the like), or nothing was chosen, or the
            operator refuses a geometry or an argument's value; the model is then as it was.
    """
    operator = registry.get(name)
    if given := sorted(_OF_THE_CONVOLUTION & set(options)):
        raise ValueError(f"{', '.join(given)}: taken from the convolution that is replaced; leave it out")
    chosen = select(model, operator.where if where is None else where)
    if "" in chosen or (not chosen and model in select(model, "all").values()):
        return _replacement(model, operator, keep_weights, options)
    if not chosen:
        before, asked = len(operators_in(model)), where or operator.where
        why = f": {before} of its layers are dynamic already" if before else ""
        raise ValueError(f"where={asked!r} chooses no convolution of this {type(model).__name__}{why}")
    convs, new = convolutions(model), {}
    for path, conv in chosen.items():
        by_paper = operator.classes[dims_of(conv)].options_in(block_of(path, convs))
        new[conv] = _replacement(conv, operator, keep_weights, {**by_paper, **options})
    # None before all are made: one that cannot be leaves the model as it was.
    return connect(replaced(model, new))


def connect(model: nn.Module) -> nn.Module:
    """Lets the layers of a model know of each other, for operators that carry something from layer to layer.

    `dynamize` does it. It is needed again only where operators were built one by one, or where a model was taken
    apart and its parts run by another module; calling it again does no harm.

    Returns:
        The same model.
    """
    for kind in {type(op): None for op in operators_in(model).values()}:
        kind.connect(model)
    return model


def _replacement(conv: nn.Module, operator: registry.Operator, keep_weights: bool, options: dict) -> DynamicConv:
    """The operator with the convolution's geometry, device, dtype, memory format, mode and (optionally) weights."""
    if hasattr(conv, "parametrizations") or not isinstance(conv.weight, nn.Parameter):
        raise ValueError("a parametrised convolution cannot be made dynamic: remove its parametrisation first")
    new = registry.build(
        operator.name,
        dims_of(conv),
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
        **options,
    )
    # As ``model.to(memory_format=...)`` would have done, had it come after.
    for parameter in new.parameters():
        if parameter.dim() == conv.weight.dim():
            parameter.data = parameter.data.contiguous(memory_format=memory_format(conv.weight))
    if keep_weights:
        new.load_static(conv)
    new.train(conv.training)
    for source, target in ((conv.weight, new.weight), (conv.bias, new.bias)):
        if source is not None:
            target.requires_grad_(source.requires_grad)
    return new
