"""Which convolutions a placement means, on networks whose names timm and torchvision share."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.placement import PLACEMENTS, block_of, convolutions, select

RESNET = torchvision.models.resnet18()
BOTTLENECK = torchvision.models.resnet50()
MOBILENET = torchvision.models.mobilenet_v2()
BLOCKS = [f"layer{stage}.{block}.conv{i}" for stage in (1, 2, 3, 4) for block in (0, 1) for i in (1, 2)]
SHORTCUTS = [f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)]


def names(model: nn.Module, where: str) -> list[str]:
    return list(select(model, where))


def test_resnet18():
    assert names(RESNET, "blocks") == names(RESNET, "dense_blocks") == BLOCKS
    assert sorted(names(RESNET, "body")) == sorted(BLOCKS + SHORTCUTS)
    assert sorted(names(RESNET, "all")) == sorted(["conv1", *BLOCKS, *SHORTCUTS])
    assert names(RESNET, "initial") == ["conv1"]
    assert names(RESNET, "median") == ["layer3.0.conv1"]
    assert names(RESNET, "terminal") == ["layer4.1.conv2"]
    assert names(RESNET, "block_first") == [name for name in BLOCKS if name.endswith("conv1")]


def test_resnet50_first_of_each_block():
    first = names(BOTTLENECK, "block_first")
    assert len(first) == 3 + 4 + 6 + 3 and all(name.endswith(".conv1") for name in first)


def test_depthwise_convolutions_are_no_dense_ones():
    dense, blocks = select(MOBILENET, "dense_blocks"), select(MOBILENET, "blocks")
    depthwise = [name for name, conv in blocks.items() if conv.groups > 1]
    assert len(depthwise) == 17 and set(blocks) == set(dense) | set(depthwise)


def test_a_block_is_what_holds_several_convolutions():
    convs = convolutions(RESNET)
    assert list(block_of("layer2.0.downsample.0", convs)) == ["layer2.0.conv1", "layer2.0.conv2"]
    plain = convolutions(nn.Sequential(nn.Sequential(nn.Conv1d(1, 4, 3)), nn.Sequential(nn.Conv1d(4, 4, 3))))
    assert list(block_of("1.0", plain)) == ["0.0", "1.0"]


def test_dcd_pools_by_the_kind_of_block():
    def grids(model: nn.Module) -> set[int]:
        return {op.attention.grid for op in dc.operators_in(dc.dynamize(model, "dcd")).values()}

    assert grids(torchvision.models.resnet18()) == {2}
    assert grids(torchvision.models.resnet50()) == {1}
    model = dc.dynamize(torchvision.models.resnet18(), "dcd", grid=1)
    assert {op.attention.grid for op in dc.operators_in(model).values()} == {1}


def test_single_convolutions_have_every_placement_or_say_so():
    for where in PLACEMENTS:
        model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Conv1d(4, 4, 3))
        if where == "block_first":
            with pytest.raises(ValueError, match="chooses no convolution"):
                dc.dynamize(model, "dyconv", where=where)
        else:
            assert dc.operators_in(dc.dynamize(model, "dyconv", where=where))


def test_unknown_placement():
    with pytest.raises(dc.UnknownName, match="did you mean .*terminal"):
        select(RESNET, "terminl")


# Networks of timm with the gates in their blocks, and how many convolutions are in those.
GATES = [
    ("efficientnet_b0", 32),
    ("resnest14d", 8),
    ("skresnet18", 16),
    ("ecaresnet26t", 8),
    ("legacy_seresnet18", 16),
    ("gcresnext26ts", 24),
    ("seresnet33ts", 20),
    ("ese_vovnet19b_dw", 4),
    ("rdnet_tiny", 15),
    ("convnext_atto", 0),
    ("visformer_tiny", 0),
    ("swiftformer_xs", 0),
]


@pytest.mark.parametrize(("name", "count"), GATES)
def test_gates_are_left_out_and_layers_of_the_same_names_are_not(name, count):
    timm = pytest.importorskip("timm", reason="timm comes with the timm extra")
    with torch.device("meta"):
        model = timm.create_model(name)
    left = [
        n
        for n in names(model, "all")
        if n not in names(model, "body") and not n.startswith(("stem", "conv", "layer0."))
    ]
    assert len(left) == count and len(names(model, "body")) > len(left)


def test_gates_of_torchvision():
    with torch.device("meta"):
        model = torchvision.models.mobilenet_v3_small()
    gates = [n for n, m in model.named_modules() if isinstance(m, torchvision.ops.SqueezeExcitation)]
    convs = [f"{gate}.{leaf}" for gate in gates for leaf in ("fc1", "fc2")]
    assert convs and set(names(model, "all")) - set(names(model, "body")) == {"features.0.0", *convs}
    assert len(names(model, "blocks")) == len(names(model, "all")) - len(convs) - 1


def test_gates_of_maxvit():
    with torch.device("meta"):
        model = torchvision.models.maxvit_t()
    gates = [n for n in names(model, "all") if n.endswith((".fc1", ".fc2"))]
    assert gates and not set(gates) & set(names(model, "body"))
    assert len(names(model, "body")) == len(names(model, "all")) - len(gates) - 2  # of the stem


def test_gates_of_bisenet():
    modules = pytest.importorskip("mmseg.models.backbones.bisenetv1", reason="mmseg comes with the mmseg extra")
    arm, ffm = modules.AttentionRefinementModule(8, 4), modules.FeatureFusionModule(8, 4)
    model = nn.ModuleDict({"stem": nn.Conv2d(3, 8, 3), "arm": arm, "ffm": ffm})
    assert names(model, "blocks") == ["arm.conv_layer.conv", "ffm.conv1.conv"]


def test_gates_do_not_make_a_block():
    block = nn.ModuleDict({"conv1": nn.Conv2d(4, 4, 3), "conv2": nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3)})})
    block["conv2"]["fc1"], block["se"] = nn.Conv2d(4, 1, 1), nn.ModuleDict({"fc1": nn.Conv2d(4, 1, 1)})
    convs = convolutions(nn.ModuleDict({"stem": nn.Conv2d(3, 4, 3), "0": block}))
    assert all(list(block_of(name, convs)) == ["0.conv1", "0.conv2.conv"] for name in convs if name != "stem")
    assert PLACEMENTS["block_first"](convs) == ["0.conv1"]
