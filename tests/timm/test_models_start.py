"""timm's own way to fine-tune from a file, with the file of a static network."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.layers import BlurPool2d, convert_splitbn_model
from torch import nn

import timm_models  # noqa: F401 - registers the models
from dynconv_plugins.errors import UserError

X = torch.randn(2, 3, 64, 64)


@pytest.fixture(scope="module")
def static(tmp_path_factory) -> dict[str, tuple[nn.Module, Path]]:
    """Static networks whose residual branches are not zero, and their files."""
    found = {}
    for name in ("resnet18", "mobilenetv2_050"):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=10).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
        path = tmp_path_factory.mktemp("static") / f"{name}.pth"
        torch.save(model.state_dict(), path)
        found[name] = model, path
    return found


@pytest.mark.parametrize(
    "name", [*(f"resnet18_{op}" for op in ("odconv", "odconv4x", "dcd", "hard", "dyconv")), "mobilenetv2_050_odconv"]
)
@torch.no_grad()
def test_it_starts_as_the_static_one(static, name: str) -> None:
    """timm never loads strictly where the number of classes is another: attention would be left as it is drawn."""
    model, path = static[name.rpartition("_")[0]]
    overlay = {"file": str(path), "num_classes": -1}
    ours = timm.create_model(name, num_classes=20, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    torch.testing.assert_close(ours.forward_features(X), model.forward_features(X), rtol=1e-4, atol=1e-4)
    features = timm.create_model(name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    expected = model.forward_intermediates(X, intermediates_only=True)
    for got, want in zip(features(X), expected, strict=False):
        if got.shape == want.shape:
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_strictly_it_is_refused_and_what_does_not_fit_too(static) -> None:
    model, _ = static["resnet18"]
    weights = model.state_dict()
    keys = list(weights)
    ours = timm.create_model("resnet18_odconv", num_classes=10)
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.load_state_dict(weights)
    with pytest.raises(RuntimeError, match="size mismatch for layer1.0.conv1.weight"):
        timm.create_model("resnet18_odconv", num_classes=10, channels=(8, 8, 8, 8)).load_state_dict(
            weights, strict=False
        )
    assert list(weights) == keys, "the caller's own"
    # A dynamic network's own weights are as they were.
    assert not timm.create_model("resnet18_odconv", num_classes=10).load_state_dict(ours.state_dict()).missing_keys


def test_norms_of_augmented_splits() -> None:
    model = convert_splitbn_model(timm.create_model("resnet18_odconv", num_classes=3), 2).train()
    assert model(torch.randn(4, 3, 32, 32)).shape == (4, 3)


def test_strides_that_an_antialiasing_layer_has_taken() -> None:
    with pytest.raises(UserError, match="aa_layer"):
        timm.create_model("resnet50_odconv", stride_in_1x1=True, aa_layer=BlurPool2d)
