"""Networks with a task mask made physically smaller."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .chains import chains
from .compiled import bare
from .convert import operators_in
from .errors import UserError
from .functional import Attention
from .operators import Hard1d, Hard2d, Hard3d
from .operators.base import memory_format
from .surgery import Cost, cost_lines, costs, replaced

_WORTH = 1 / 8  # of the channels: a copy of the map costs more than what a smaller cut saves
_TOLERANCE = 1e-3  # of the largest output: far above rounding, far below a wrong cut


class PrunedLayer(NamedTuple):
    """What became of one masked convolution.

    Attributes:
        on: Part of its mask that is on.
        filters: Filters before and after.
        inputs: Input channels that it reads before and after.
    """

    on: float
    filters: tuple[int, int]
    inputs: tuple[int, int]


class PruneReport(NamedTuple):
    """What pruning did.

    Attributes:
        layers: The masked convolutions by name.
        dynamic: Names of the other dynamic operators, which are as they were.
        untraced: Names of modules whose data flow is not known. If there are any, channels were cut within single
            blocks and convolutions only.
        before, after: What the network costs per sample; multiply-adds and latency if the input's size was given.
        difference: The largest difference between the outputs for a random input, if the size was given and there are
            tensors in the outputs; else they were not compared.
    """

    layers: dict[str, PrunedLayer]
    dynamic: tuple[str, ...]
    untraced: tuple[str, ...]
    before: Cost
    after: Cost
    difference: float | None

    def __str__(self) -> str:
        width = max(len(name) for name in ("layer", *self.layers))
        lines = [f"{'layer':<{width}}  mask on  filters       input channels"]
        for name, (on, filters, inputs) in self.layers.items():
            cuts = (f"{old} -> {new}" if old != new else f"{old}" for old, new in (filters, inputs))
            lines.append(f"{name:<{width}}  {100 * on:6.1f}%  {next(cuts):<12}  {next(cuts)}")
        if all(old == new for layer in self.layers.values() for old, new in layer[1:]):
            lines.append("no filter and no input channel is off as a whole: train with granularity='filter'")
        if self.dynamic:
            lines.append(f"still dynamic: {', '.join(self.dynamic)}")
        if self.untraced:
            lines.append(f"not traced, cut within single blocks only: {', '.join(self.untraced)}")
        lines += cost_lines(self.before, self.after)
        compared = self.difference is not None
        lines.append(f"outputs differ by at most {self.difference:.1e}" if compared else "outputs were not compared")
        return "\n".join(lines)


class PartialConv(nn.Module):
    """A convolution that reads some of the input's channels and gives some of the filters; the rest is their bias.

    Args:
        conv: The convolution of what is left, without bias.
        inputs: Indices of the channels it reads; ``None`` for all.
        filters: For each output channel its filter's index in `conv`, or their number for one that is off; ``None`` if
            no filter is missing.
        bias: Of all output channels.
    """

    def __init__(self, conv: nn.Module, inputs: Tensor | None, filters: Tensor | None, bias: Tensor | None) -> None:
        super().__init__()
        self.conv, self.dims = conv, conv.weight.dim() - 2
        self.register_buffer("inputs", inputs)
        self.register_buffer("filters", filters)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), conv.weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C_in, *S]`` to ``[B, C_out, *S_out]``; without the batch dimension as well."""
        channels = -1 - self.dims
        y = self.conv(x if self.inputs is None else x.index_select(channels, self.inputs))
        if self.filters is not None:  # one more channel, of zeros: that of the filters that are off
            y = F.pad(y, [0, 0] * self.dims + [0, 1]).index_select(channels, self.filters)
        return y if self.bias is None else y + self.bias.reshape(-1, *(1,) * self.dims)


@torch.no_grad()
def prune(model: nn.Module, input_size: Sequence[int] | None = None) -> tuple[nn.Module, PruneReport]:
    """Makes a network with task masks (`Hard2d` with ``mask='task'``) physically smaller, with the same outputs.

    That they are the same rests on what ``torch.fx`` sees of the data flow; they are compared only where `input_size`
    is given. Every masked convolution becomes torch's own, and then what is off is cut out, exactly, in eval mode:

    - A filter that is off gives a constant map. Where one convolution or linear layer alone reads it (behind batch
      norm, activation, depthwise convolution and pooling), it is cut out of all of them, and the constant goes into
      the reader's bias. If the reader pads with zeros, one filter stays in for all whose constant is not zero.
    - A channel that the only reader does not read is cut out of the layer that makes it.
    - Elsewhere (a residual stream, for example) a convolution by itself reads and makes less, see `PartialConv`; not
      where it would save a single channel or less than an eighth of them. Grouped convolutions lose whole groups.

    A network that cannot be traced as a whole (control flow that depends on values) is cut within single convolutions,
    and where a block runs its own layers, as residual blocks do; that nothing reaches into such a block from outside is
    taken for granted. The report names what could not be traced.

    Single slices that are off, in rows and columns that are not, save nothing in a dense convolution: with
    ``granularity='slice'`` and half the mask on there is usually nothing to cut, and the report says so.
    ``granularity='filter'`` masks what can be cut.

    Args:
        model: Left as it is; of a compiled one what was compiled. Other dynamic operators stay in the result as they
            are.
        input_size: The input's shape with its batch, for multiply-adds, latency, and a check of the outputs.

    Returns:
        A new model in eval mode, and the report.

    Raises:
        UserError: If no operator has a task mask.
        RuntimeError: If the outputs for a random input of `input_size` are not the same, or there are none.
    """
    model = bare(model)
    operators = operators_in(model)
    masked = [n for n, op in operators.items() if isinstance(op, (Hard1d, Hard2d, Hard3d)) and op.mask == "task"]
    if not masked:
        raise UserError("nothing to prune: no operator has a task mask (dynamize(model, 'hard', mask='task'))")
    old, new = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    convs = {name: operators_in(new)[name].frozen(Attention()) for name in masked}
    new = replaced(new, {operators_in(new)[name]: conv for name, conv in convs.items()})
    found, untraced = chains(new)
    # A cut can leave another layer's filter without anything that it reads, which is then constant in its turn.
    while sum(chain.shrink() for chain in found):
        pass
    partial = {conv: _partial(conv) for conv in convs.values()}
    layers = {name: _layer(operators[name], conv, partial[conv]) for name, conv in convs.items()}
    new = replaced(new, {conv: part for conv, part in partial.items() if part is not None})
    difference = None if input_size is None else _difference(old, new, input_size)
    dynamic = tuple(name for name in operators if name not in masked)
    before, after = costs([old, new], input_size, timed=True)
    return new, PruneReport(layers, dynamic, tuple(untraced), before, after, difference)


def _partial(conv: nn.Module) -> PartialConv | None:
    """The convolution without filters and input channels that are off; ``None`` if that saves too little."""
    on = (conv.weight != 0).flatten(2).any(2)
    filters, inputs, groups = on.any(1), on.any(0), 1
    if conv.groups > 1:  # whole groups
        left = on.reshape(conv.groups, -1).any(1)
        left[0] |= not left.any()
        filters, inputs = (left.repeat_interleave(n // conv.groups) for n in (conv.out_channels, conv.in_channels))
        groups = int(left.sum())
    little = [(~keep).sum() < max(2, _WORTH * len(keep)) for keep in (filters, inputs)]
    if conv.groups > 1 and any(little):  # a group's filters and inputs go together
        return None
    for keep, few in zip((filters, inputs), little, strict=True):
        keep[:] |= few
        keep[0] |= not keep.any()
    if filters.all() and inputs.all():
        return None
    small = copy.deepcopy(conv)
    weight = conv.weight[filters] if conv.groups > 1 else conv.weight[filters][:, inputs]
    weight = weight.contiguous(memory_format=memory_format(conv.weight))
    small.weight = nn.Parameter(weight, conv.weight.requires_grad)
    small.in_channels, small.out_channels, small.groups = int(inputs.sum()), len(weight), groups
    reads = None if inputs.all() else inputs.nonzero().flatten()
    if filters.all():
        return PartialConv(small, reads, None, None).train(conv.training)
    small.bias = None
    gives = torch.where(filters, filters.cumsum(0) - 1, len(weight))
    return PartialConv(small, reads, gives, conv.bias).train(conv.training)


def _layer(operator: nn.Module, conv: nn.Module, part: PartialConv | None) -> PrunedLayer:
    left = conv if part is None else part.conv
    return PrunedLayer(
        (operator.zeta > 0).float().mean().item(),
        (operator.out_channels, left.out_channels),
        (operator.in_channels, left.in_channels),
    )


def _difference(old: nn.Module, new: nn.Module, input_size: Sequence[int]) -> float | None:
    """The largest difference between the outputs for a random input; ``None`` if they hold no tensors.

    Raises:
        RuntimeError: If it is more than rounding, or the new model cannot run or gives something else.
    """
    first = next(old.parameters())
    x = torch.randn(tuple(input_size), device=first.device, dtype=first.dtype)
    want = list(_tensors(old(x)))
    try:
        got = list(_tensors(new(x)))
    except Exception as e:  # layers that do not fit each other fail in as many ways as there are layers
        raise RuntimeError(f"the pruned network cannot run ({e}): its data flow was misread") from e
    if [y.shape for y in want] != [y.shape for y in got]:
        raise RuntimeError("the pruned network's outputs have other shapes: its data flow was misread")
    if not want:
        return None
    largest = max((a.abs().max().item() for a in want if a.numel()), default=0.0)
    difference = max(((a - b).abs().max().item() for a, b in zip(want, got, strict=True) if a.numel()), default=0.0)
    if not difference <= _TOLERANCE * max(largest, 1.0):
        raise RuntimeError(f"the pruned network's outputs differ by {difference:.1e}: its data flow was misread")
    return difference


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in a model's output."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list, dict)):
        for item in output.values() if isinstance(output, dict) else output:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        # One by one: `vars` knows no slots, and `asdict` copies.
        yield from _tensors([getattr(output, field.name) for field in dataclasses.fields(output)])
