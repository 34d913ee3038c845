"""convert_checkpoint: what does not fit is one line that says how and, where it can, what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")

import published_layouts as published
from conversion_networks import build

import dynconv_plugins as dc
import timm_models


def without(weights: dict, *keys: str) -> dict:
    return {k: v for k, v in weights.items() if k not in keys}


REFUSED = {
    "number of kernels": (
        "resnet18_odconv",
        lambda: published.fill(published.resnet(18, 4, 5)),
        ["48 of another shape (layer1.0.conv1.weight [4, 64, 64, 3, 3] instead of [1, 64, 64, 3, 3]", "num_kernels=4"],
    ),
    "number of classes": (
        "resnet18_odconv",
        lambda: published.fill(published.resnet(18, 1, 7)),
        ["2 of another shape (fc.weight [7, 512] instead of [5, 512]", "num_classes=7", "model.reset_classifier(5)"],
    ),
    "classes of a renamed classifier": (
        "mobilenetv2_050_odconv",
        lambda: published.fill(published.mobilenetv2(0.5, 1, 7)),
        ["classifier.1.weight [7, 1280] instead of [5, 1280]", "the source has 7 classes, the model 5"],
    ),
    "another operator": (
        "resnet18_dyconv",
        lambda: published.fill(published.resnet(18, 4, 5)),
        [
            "224 of the source unknown to the model (layer1.0.conv1.attention.fc.weight",
            "and 221 more",
            "of the model not in the source (layer1.0.conv1.attention.temperature",
        ],
    ),
    "another depth": (
        "resnet34_odconv",
        lambda: published.fill(published.resnet(18, 1, 5)),
        ["of the model not in the source (layer1.2.conv1.weight"],
    ),
    "another width": (
        "mobilenetv2_050_odconv",
        lambda: published.fill(published.mobilenetv2(0.75, 1, 5)),
        ["of another shape (features.0.0.weight [24, 3, 3, 3] instead of [16, 3, 3, 3]"],
    ),
    "a static convolution of another width": (
        "resnet18_odconv4x",
        lambda: {k: v[:, :8] if k == "layer1.0.conv1.weight" else v for k, v in build("resnet18").state_dict().items()},
        ["the model: 1 of another shape (layer1.0.conv1.weight [64, 8, 3, 3] instead of [64, 64, 3, 3])"],
    ),
    "a static one of another depth": (
        "resnet34_odconv",
        lambda: build("resnet18").state_dict(),
        ["of the model not in the source (layer1.2.conv1.weight"],
    ),
    "a bottleneck of another width": (
        "resnet18_odconv",
        lambda: {
            k: v[:, :8] if k.endswith("conv1.attention.fc.weight") else v
            for k, v in published.fill(published.resnet(18, 1, 5)).items()
        },
        ["8 of another shape (layer1.0.conv1.attention.squeeze.weight [16, 8] instead of [16, 64]"],
    ),
    "missing": (
        "resnet18_odconv",
        lambda: without(published.fill(published.resnet(18, 1, 5)), "bn1.weight", "fc.bias"),
        ["the model: 2 of the model not in the source (bn1.weight, fc.bias)"],
    ),
    "unknown": (
        "resnet18_odconv",
        lambda: build("resnet18").state_dict() | {"head.extra": torch.ones(1)},
        ["the model: 1 of the source unknown to the model (head.extra)"],
    ),
    "nothing in it": ("resnet18_odconv", dict, ["not a state dict: it is empty"]),
    "an epoch": ("resnet18_odconv", lambda: {"epoch": 3}, ["not a state dict: 'epoch' is of type int"]),
    "a module": ("resnet18_odconv", lambda: nn.Linear(1, 1), ["no state dict but a Linear"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line(case):
    name, source, says = REFUSED[case]
    with pytest.raises(dc.UserError) as caught:
        dc.convert_checkpoint(source(), build(name))
    assert "\n" not in str(caught.value)
    for part in says:
        assert part in str(caught.value)


def test_routing_of_a_block_is_not_a_convolutions():
    source = build("efficientnet_cc_b0_4e").state_dict()
    model = dc.dynamize(build("efficientnet_b0"), "condconv", where=r"blocks\.[456]", num_kernels=4)
    with pytest.raises(dc.UserError, match="no weights make the two equal: convert for timm_models.adopt_condconv"):
        dc.convert_checkpoint(source, model)
    eight = timm_models.adopt_condconv(build("efficientnet_cc_b0_8e"))
    with pytest.raises(dc.UserError, match=r"\[4, 38400\] instead of \[8, 38400\].*the source has 4 kernels"):
        dc.convert_checkpoint(source, eight)
