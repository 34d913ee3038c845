"""Networks with hard attention for the tests of pruning, and the comparison that all of them make."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from battery import STATIC
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.prune import PartialConv

NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def masked(
    model: nn.Module, rate: float = 0.5, granularity: str = "filter", where="all", double: bool = True
) -> nn.Module:
    """A model of hard operators with a random mask, and norms that are not at their start."""
    torch.manual_seed(1)
    model = dc.dynamize(model, "hard", where=where, mask="task", granularity=granularity)
    for op in dc.operators_in(model).values():
        if getattr(op, "mask", None) == "task":
            op.zeta.data = torch.where(torch.rand_like(op.zeta) < rate, 0.3, -0.3)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight), nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean, std=0.3), nn.init.uniform_(module.running_var, 0.5, 2.0)
    return (model.double() if double else model).eval()


def chain(dims: int = 2, activation: nn.Module | None = None, middle: dict | None = None, **options) -> nn.Module:
    """Convolution, norm, activation, a convolution of `middle`, norm, activation, and one convolution more."""
    conv, norm = STATIC[dims], NORM[dims]
    options = {"padding": 1, **options}
    activation = activation or nn.ReLU()
    layers = [conv(3, 12, 3, padding=1), norm(12), activation, conv(12, 12, 3, **options, **(middle or {})), norm(12)]
    return nn.Sequential(*layers, copy.deepcopy(activation), conv(12, 5, 3, **options))


def data(dims: int = 2, size: int = 7, batch: int = 3, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, channels, *(size,) * dims, dtype=torch.float64, generator=generator)


def same(model: nn.Module, x: torch.Tensor) -> tuple[nn.Module, dc.PruneReport]:
    """Prunes and compares the outputs; the copy that is left has nothing dynamic."""
    state = copy.deepcopy(model.state_dict())
    pruned, report = dc.prune(model)
    assert pruned is not model and not dc.operators_in(pruned) and not pruned.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    torch.testing.assert_close(pruned(x), model(x), rtol=1e-10, atol=1e-10)
    return pruned, report


def partial(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, PartialConv)]


class Residual(nn.Module):
    """A stream that several layers read and write."""

    def __init__(self, dims: int = 2, groups: int = 1) -> None:
        super().__init__()
        conv = STATIC[dims]
        self.stem = conv(3, 8, 3, padding=1)
        self.conv1, self.norm = conv(8, 8, 3, padding=1, groups=groups), NORM[dims](8)
        self.conv2 = conv(8, 8, 3, padding=1, groups=groups)

    def forward(self, x):
        x = self.stem(x)
        return x + self.conv2(F.relu(self.norm(self.conv1(x))))
