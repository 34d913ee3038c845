"""Networks for the tests of converting checkpoints, and the comparisons that they make; needs timm."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

import timm_models  # noqa: F401 - registers the models


def build(name: str, **options) -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model(name, **{"num_classes": 5, **options}).eval()


def images(batch: int = 2, size: int = 64) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))


def alive(model: nn.Module) -> nn.Module:
    """A random network whose output depends on its input: its batch norms have seen some."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(images(4))
    return model.eval()


@torch.no_grad()
def assert_same_outputs(model: nn.Module, source: nn.Module, tolerance: float = 1e-4) -> None:
    got, want = model(images()), source(images())
    assert (want[0] - want[1]).abs().max() > 0.1 * want.abs().max(), "a source that is the same for all images"
    assert (got - want).abs().max() <= tolerance * want.abs().max()


def assert_same_outputs_in_double(model, source):
    with torch.no_grad():
        got, want = model.double()(images().double()), source.double()(images().double())
    assert (want[0] - want[1]).abs().max() > 0.1 * want.abs().max()
    assert (got - want).abs().max() <= 1e-6 * want.abs().max()
