"""Convolutions whose filters are read by one layer only, and the removal of the filters that it can do without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .operators.base import DynamicConv
from .placement import convolutions

_Norm = nn.modules.batchnorm._BatchNorm
_POINTWISE = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh),
)
_POINTWISE_CALLS = (torch.relu, F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, torch.sigmoid)
# What makes of a constant map the same constant, padded or not.
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)


@dataclass(frozen=True)
class Chain:
    """A dense convolution, layers that keep channels apart, and the one layer that reads the result.

    Attributes:
        producer: The convolution.
        between: Batch norms, depthwise convolutions, and functions applied to every value.
        consumer: A dense convolution, or a linear layer after flattening.
    """

    producer: nn.Module
    between: tuple[nn.Module | Callable[[Tensor], Tensor], ...]
    consumer: nn.Module

    @torch.no_grad()
    def shrink(self) -> bool:
        """Removes the channels that the consumer can do without, in place and exactly; whether there were any.

        These are channels that it does not read, and channels that are constant, because their filter is zero: by a
        constant of zero nothing is lost; other constants go into the consumer's bias, or, if it pads with zeros, so
        that they are constant in the middle only, into one channel that stands for all of them.
        """
        constant, value = self._constants()
        weight = self.consumer.weight.double().clone()
        weight = weight.reshape(len(weight), len(value), -1)  # [outputs, channels, what else is read of each]
        gone = ~(weight != 0).any(2).any(0) | (constant & (value == 0))
        others = constant & ~gone
        if _pads_zeros(self.consumer):
            # The one whose constant is the largest: the quotients stay small.
            chosen = torch.where(others, value.abs(), -1.0).argmax()
            if others.any():
                weight[:, chosen] = torch.einsum("oct,c->ot", weight[:, others], value[others] / value[chosen])
                others[chosen] = False
        elif others.any():
            # Not to be read again: where a single channel has to stay, nothing below takes it away.
            self._write(weight * ~others[:, None])
            bias = self.consumer.bias
            shift = weight[:, others].sum(2) @ value[others]
            shift = shift if bias is None else shift + bias
            self.consumer.bias = nn.Parameter(shift.to(self.consumer.weight), self.consumer.weight.requires_grad)
        gone |= others
        weight[:, gone] = 0  # said already, or nothing: also of the one channel that has to stay where none is needed
        gone[0] &= not gone.all()
        if not gone.any():
            return False
        self._keep(~gone, weight)
        return True

    def _constants(self) -> tuple[Tensor, Tensor]:
        """Which channels are constant at the consumer, over positions and samples, and their values in float64."""
        constant = ~(self.producer.weight != 0).flatten(1).any(1)
        value = _bias(self.producer)
        for step in self.between:
            if _is_conv(step):
                weight = step.weight.double().flatten(1)
                unread = ~(weight != 0).any(1)
                border = _pads_zeros(step) & (value != 0)
                value = torch.where(unread, 0.0, value * weight.sum(1)) + _bias(step)
                constant = unread | (constant & ~border)
            else:
                dtype = step.running_mean.dtype if isinstance(step, _Norm) else value.dtype
                shape = (1, -1, *(1,) * (self.producer.weight.dim() - 2))
                value = step(value.to(dtype).reshape(shape)).flatten().double()
        return constant, value

    def _keep(self, keep: Tensor, weight: Tensor) -> None:
        """Keeps some of the channels; `weight` is the consumer's new one, ``[outputs, channels, rest]``."""
        n = int(keep.sum())
        _index(self.producer, keep)
        self.producer.out_channels = n
        for step in self.between:
            if _is_conv(step):
                _index(step, keep)
                step.in_channels = step.out_channels = step.groups = n
            elif isinstance(step, _Norm):
                _index(step, keep)
                step.num_features = n
        new = self._write(weight[:, keep])
        setattr(self.consumer, "in_channels" if _is_conv(self.consumer) else "in_features", new.shape[1])

    def _write(self, weight: Tensor) -> Tensor:
        """Makes `weight`, ``[outputs, channels, rest]``, the consumer's, and returns it in its shape."""
        old = self.consumer.weight
        rest = old.shape[2:] if _is_conv(self.consumer) else ()
        self.consumer.weight = nn.Parameter(weight.to(old).reshape(len(old), -1, *rest), old.requires_grad)
        return self.consumer.weight


def chains(model: nn.Module) -> tuple[list[Chain], list[str]]:
    """The chains of a model in eval mode, in the order of execution, and the names of modules that cannot be traced.

    A model that cannot be traced as a whole is taken apart into its children; what these do among each other then
    counts as unknown, and of an ``nn.Sequential`` also what its own children do: such a model may run them one by one
    and read what lies between. Of modules inside modules that cannot be traced the outermost are named.
    """
    convs = {conv for conv in convolutions(model).values() if _is_plain(conv)}
    found, failed = [], []

    def visit(name: str, module: nn.Module, apart: bool = False, named: bool = False) -> None:
        if not any(child in convs for child in module.modules()) or module in convs:
            return
        try:
            graph = None if apart and isinstance(module, nn.Sequential) else _Tracer().trace(module)
        except Exception:  # tracing runs the model's own code on stand-ins for tensors: anything may be raised
            failed.extend([] if named else [name or type(module).__name__])
            graph, named = None, bool(name)
        if graph is not None:
            found.extend(_in_graph(module, graph, convs))
            return
        for child_name, child in module.named_children():
            visit(f"{name}.{child_name}".lstrip("."), child, apart=True, named=named)

    visit("", model)
    return found, failed


class _Tracer(fx.Tracer):
    """Keeps operators whole, and batch norms with an activation of their own (timm's)."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (DynamicConv, _Norm)) or super().is_leaf_module(m, module_qualified_name)


def _in_graph(model: nn.Module, graph: fx.Graph, convs: set[nn.Module]) -> Iterator[Chain]:
    """The chains of a traced model; layers that are called twice, or whose parameters are read, are in none."""
    called = Counter(model.get_submodule(n.target) for n in graph.nodes if n.op == "call_module")
    read = {model.get_submodule(n.target.rpartition(".")[0]) for n in graph.nodes if n.op == "get_attr"}
    # An activation without parameters may be shared, as torchvision's and mmseg's ReLU is.
    own = {m for m, times in called.items() if m not in read and (times == 1 or not m.state_dict())}

    def module_of(node: fx.Node) -> nn.Module | None:
        module = model.get_submodule(node.target) if node.op == "call_module" else None
        return module if module in own and (module in convs or not _hooked(module)) else None

    for node in graph.nodes:
        producer = module_of(node)
        if producer in convs and producer.groups == 1:
            between, flat = [], False
            while (node := _only_reader(node)) is not None:
                module = module_of(node)
                if (not flat and module in convs and module.groups == 1) or (flat and type(module) is nn.Linear):
                    yield Chain(producer, tuple(between), module)
                    break
                if _flattens(node, module):
                    flat = True
                    continue
                step = _step(node, module, convs, flat)
                if step is None:
                    break
                between.append(step)


def _only_reader(node: fx.Node) -> fx.Node | None:
    """The node that reads `node`, if it is the only one and reads nothing else."""
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    return reader if reader is not None and reader.all_input_nodes == [node] else None


def _step(node: fx.Node, module: nn.Module | None, convs: set[nn.Module], flat: bool):
    """What a node does to each channel by itself; ``None`` if it is not known to do so."""
    if module is None:
        if node.op == "call_function" and node.target in _POINTWISE_CALLS and node.args[:1]:
            return lambda value: node.target(value, *node.args[1:], **node.kwargs)
        return F.relu if node.op == "call_method" and node.target in ("relu", "relu_") else None
    if type(module) in _POINTWISE:
        return module
    if flat:
        return None
    if type(module) in _POOLS:
        return _same
    if isinstance(module, _Norm):
        plain = all(type(child) in _POINTWISE for child in module.children())
        return module if plain and module.running_mean is not None else None
    depthwise = module in convs and module.groups == module.in_channels == module.out_channels
    return module if depthwise else None


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether the node makes ``[B, C * m]`` of ``[B, C, *S]``."""
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    named = node.target is torch.flatten or (node.op == "call_method" and node.target == "flatten")
    return named and (node.args[1:], node.kwargs) in (((1,), {}), ((), {"start_dim": 1}))


def _same(value: Tensor) -> Tensor:
    return value


def _is_conv(module: object) -> bool:
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _is_plain(conv: nn.Module) -> bool:
    """Whether its weight is a parameter of its own, and nothing but its forward reads it."""
    return "weight" in conv._parameters and not hasattr(conv, "parametrizations") and not _hooked(conv)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks)


def _bias(conv: nn.Module) -> Tensor:
    """The bias in float64, zeros without one."""
    bias = conv.weight.new_zeros(len(conv.weight)) if conv.bias is None else conv.bias
    return bias.double().clone()  # activations may work in place


def _pads_zeros(module: nn.Module) -> bool:
    """Whether it sees a constant map as one with a border of zeros."""
    return _is_conv(module) and module.padding_mode == "zeros" and any(module._reversed_padding_repeated_twice)


def _index(module: nn.Module, keep: Tensor) -> None:
    """Keeps some entries of each of the module's own parameters and buffers that have one per channel."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.detach()[keep], parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.dim():
            module._buffers[name] = buffer[keep]
