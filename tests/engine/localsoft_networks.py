"""Networks of localsoft layers for its tests, and what they compute by its formulas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import dynconv_plugins as dc
from dynconv_plugins.convert import connect

CLASSES = {1: dc.LocalSoft1d, 2: dc.LocalSoft2d, 3: dc.LocalSoft3d}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Segment(nn.Module):
    """Runs what it holds under activation checkpointing."""

    def __init__(self, inner: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


class Children(nn.Module):
    """Runs the parts of a network without the network's own forward, as feature extractors do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(net.children())

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


def layers(count: int = 3, dims: int = 2, **options) -> list[nn.Module]:
    """Layers of 4 channels from a seed, in float64, with nothing left at zero."""
    torch.manual_seed(0)
    options = {"kernel_size": 3, "padding": 1, "width": 5, **options}
    ops = [CLASSES[dims](4, 4, **options).double() for _ in range(count)]
    for op in ops:
        for parameter in op.parameters():
            nn.init.normal_(parameter, std=0.5)
    return ops


def net(wrap=lambda op: op, count: int = 3, **options) -> nn.Sequential:
    return connect(nn.Sequential(*(nn.Sequential(wrap(op), nn.Tanh()) for op in layers(count, **options))))


def data(seed: int = 1, batch: int = 3, dims: int = 2, size: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, *(size,) * dims, dtype=torch.float64, generator=generator)


def scalar(y: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient differs everywhere."""
    return (y * torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().reshape(y.shape)).sum()


def operators(model: nn.Module) -> list[nn.Module]:
    return list(dc.operators_in(model).values())


def carrier(model: nn.Module):
    return operators(model)[0].attention.carrier


def grads(model: nn.Module, *inputs: torch.Tensor, order=None) -> list[torch.Tensor]:
    """Gradients of one step with a call of the model for each input, and one backward for each, in `order`."""
    model.zero_grad(set_to_none=True)
    losses = [scalar(model(x)) for x in inputs]
    for i in order or range(len(losses)):
        losses[i].backward()
    return [p.grad for p in model.parameters()]


def define(op, x: torch.Tensor, before: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """One layer from the formulas: output and representation."""
    head = op.attention
    gap = x.mean(tuple(range(2, x.dim())))
    before = head.state.expand(len(x), -1) if before is None else before
    u = (torch.cat([gap, before], 1) @ head.gate.weight.t() + head.gate.bias).sigmoid()
    representation = (1 - u) * before + u * (gap @ head.proposal.weight.t() + head.state).tanh()
    if op.padding == "same":
        totals = [d * (k - 1) for d, k in zip(op.dilation, op.kernel_size, strict=True)]
        sides = [n for t in reversed(totals) for n in (t // 2, t - t // 2)]
    else:
        sides = [n for p in reversed(op.padding) for n in (p, p)]
    padded = F.pad(x, sides, mode="constant" if op.padding_mode == "zeros" else op.padding_mode)
    one, conv = (1,) * op.dims, CONV[op.dims]
    mean = head.local.weight.reshape(op.num_kernels, -1, *one).expand(-1, -1, *op.kernel_size)
    local = conv(padded, mean / mean[0, 0].numel(), None, op.stride, 0, op.dilation)
    generated = representation @ head.generator.weight.t() + head.generator.bias
    a = ((generated.reshape(len(x), -1, *one) + local) / head.temperature).softmax(1)
    weights = op.weight.reshape(op.num_kernels, op.out_channels, -1, *op.kernel_size)
    maps = [conv(padded, weight, None, op.stride, 0, op.dilation, op.groups) for weight in weights]
    return sum(a[:, k, None] * y for k, y in enumerate(maps)) + op.bias.reshape(-1, *one), representation


def definition(model: nn.Module, x: torch.Tensor, cut: bool = False) -> torch.Tensor:
    """The network from the formulas; with `cut` no gradient goes from layer to layer but through the features."""
    representation = None
    for op in operators(model):
        representation = representation.detach() if cut and representation is not None else representation
        x, representation = define(op, x, representation)
        x = x.tanh()
    return x
