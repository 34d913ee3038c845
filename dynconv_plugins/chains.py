"""Where the data flow of a model shows that the filters of a convolution are read by one layer only."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .operators.base import DynamicConv
from .placement import convolutions
from .removal import Chain

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


def chains(model: nn.Module) -> tuple[list[Chain], list[str]]:
    """The chains of a model in eval mode, in the order of execution, and the names of modules that cannot be traced.

    A model that cannot be traced as a whole is taken apart into its children. What these do among each other is then
    unknown, and more: it may run the layers of its containers one by one and read what lies between, or run a layer
    that has several names several times. So of such a model only those chains count whose layers have one name each
    and are direct children of one module that is no container: its forward is what runs them, unless another module
    reaches into it. Of modules inside modules that cannot be traced the outermost are named.
    """
    convs = {conv for conv in convolutions(model).values() if _is_plain(conv)}
    if model in convs:
        return [], []
    whole = _trace(model)
    if whole is not None:
        return list(_in_graph(model, whole, convs)), []
    paths = defaultdict(list)
    for path, module in model.named_modules(remove_duplicate=False):
        paths[module].append(path)
    found, failed = [], [type(model).__name__]

    def visit(name: str, module: nn.Module, named: bool) -> None:
        if not any(child in convs for child in module.modules()) or module in convs:
            return
        graph = _trace(module)
        if graph is not None:
            found.extend(chain for chain in _in_graph(module, graph, convs) if _in_one_block(chain, model, paths))
            return
        failed.extend([] if named else [name])
        for child_name, child in module.named_children():
            visit(f"{name}.{child_name}", child, named=True)

    for name, child in model.named_children():
        visit(name, child, named=False)
    return found, failed


def _trace(module: nn.Module) -> fx.Graph | None:
    """The data flow in `module`; ``None`` where it cannot be known."""
    try:
        return _Tracer().trace(module)
    except Exception:  # tracing runs the model's own code on stand-ins for tensors: anything may be raised
        return None


def _in_one_block(chain: Chain, model: nn.Module, paths: Mapping[nn.Module, Sequence[str]]) -> bool:
    """Whether the layers of the chain have one name each, and one parent, which runs them itself."""
    steps = [step for step in chain.between if isinstance(step, nn.Module) and step.state_dict()]
    layers = [paths[layer] for layer in (chain.producer, *steps, chain.consumer)]
    parents = {path.rpartition(".")[0] for names in layers for path in names}
    if any(len(names) > 1 for names in layers) or len(parents) > 1:
        return False
    return not isinstance(model.get_submodule(parents.pop()), (nn.Sequential, nn.ModuleList, nn.ModuleDict))


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


def _is_plain(conv: nn.Module) -> bool:
    """Whether its weight is a parameter of its own, and nothing but its forward reads it."""
    return "weight" in conv._parameters and not hasattr(conv, "parametrizations") and not _hooked(conv)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks)
