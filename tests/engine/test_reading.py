"""The state dict within what trainers save."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dynconv_plugins.checkpoints.reading import unwrap
from dynconv_plugins.errors import UserError


def test_torchs_averaged_model():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    found = unwrap({"model_ema": AveragedModel(net).state_dict()})
    assert list(found) == list(net.state_dict())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in found.items())


def test_a_count_of_the_models_own_stays():
    net = nn.Linear(2, 2)
    net.register_buffer("n_averaged", torch.zeros(()))
    assert "n_averaged" in unwrap(net.state_dict(), own=net.state_dict())
    averaged = AveragedModel(net)
    assert list(unwrap(averaged.state_dict())) == list(net.state_dict())


def test_a_count_alone_is_nothing():
    with pytest.raises(UserError, match="it is empty"):
        unwrap({"n_averaged": torch.tensor(0)})
