"""What tsai and fastai do with the parts of a network, and with the names in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from tsai.models.utils import transfer_weights

from tsai_models.archs import ODConvFCN, ODConvInception, ODConvResNet

X = torch.randn(4, 1, 32)


@pytest.mark.parametrize("arch", [ODConvFCN, ODConvResNet, ODConvInception])
def test_another_module_takes_its_place(arch) -> None:
    model, other = arch(1, 3).eval(), arch(1, 3).eval()
    keys = list(model.state_dict())
    model.head[-1] = nn.Linear(model.head_nf, 7)
    assert model(X).shape == (4, 7) and model.head[-1] is model.fc
    model.backbone = other.backbone
    assert list(model.state_dict()) == keys, "nothing is there twice"
    torch.testing.assert_close(model.backbone(X), other.backbone(X))
    model.fc = other.fc
    torch.testing.assert_close(model(X), other(X))
    with pytest.raises(ValueError, match="zip"):
        model.backbone = nn.Sequential(*other.backbone, nn.Identity())


def test_transferred_weights_leave_out_the_classifier_alone(tmp_path, capsys) -> None:
    """By tsai's rule: whatever has "head" in its name."""
    trained, fresh = ODConvFCN(1, 3, operator="odconv4x"), ODConvFCN(1, 5, operator="odconv4x")
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    transfer_weights(fresh, tmp_path / "trained.pth")
    ours, theirs = fresh.state_dict(), trained.state_dict()
    assert [key for key in ours if ours[key].shape != theirs[key].shape] == ["fc.weight", "fc.bias"]
    for key in ours.keys() - {"fc.weight", "fc.bias"}:
        assert torch.equal(ours[key], theirs[key]), key
