"""Every registered operator in mmseg: through ``conv_cfg`` and through `DynConvBackbone`, forward and backward."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import dynconv_plugins as dc
import mmseg_configs

OPERATORS = dc.registry.names()
# Instead of up to 90M parameters: nothing asserted of the shipped segmentors depends on the width, and test_recipes
# builds one with every operator as wide as shipped.
NARROW = [8, 16, 16, 32]
NARROWED = {
    "fpn": {"model.neck.in_channels": NARROW},
    "deeplabv3plus": {
        "model.decode_head.in_channels": NARROW[3],
        "model.decode_head.c1_in_channels": NARROW[0],
        "model.auxiliary_head.in_channels": NARROW[2],
    },
}


def samples(size: int = 32) -> list[SegDataSample]:
    truth = [PixelData(data=torch.randint(0, 21, (1, size, size))) for _ in range(2)]
    return [SegDataSample(gt_sem_seg=mask, metainfo={"img_shape": (size, size)}) for mask in truth]


def without_gradient(model) -> list[str]:
    """Kernels that the backward pass did not reach."""
    return [name for name, op in dc.operators_in(model).items() if op.weight.grad is None]


@pytest.mark.parametrize("operator", OPERATORS)
def test_conv_cfg_of_a_backbone(operator):
    torch.manual_seed(0)
    config = dict(type="ResNetV1c", depth=18, base_channels=16, stem_channels=16, norm_cfg=dict(type="BN"))
    model = MODELS.build(dict(config, conv_cfg=dict(type=operator)))
    model.init_weights()
    found = dc.operators_in(model)
    assert len(found) == 22 and all(isinstance(op, dc.registry.get(operator).classes[2]) for op in found.values())
    maps = model(torch.randn(2, 3, 64, 64))
    assert [m.shape[1:] for m in maps] == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]
    sum(m.pow(2).mean() for m in maps).backward()
    assert not without_gradient(model)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("head", ["fpn", "deeplabv3plus"])
def test_shipped_segmentor(head, operator):
    torch.manual_seed(0)
    cfg = Config.fromfile(mmseg_configs.path(f"{head}_resnet18-{operator}_voc12-128x128"))
    cfg.merge_from_dict({"model.backbone.channels": NARROW, **NARROWED[head]})
    model = MODELS.build(cfg.model).train()
    found = dc.operators_in(model)
    static = dc.registry.get(operator)
    assert found and all(isinstance(op, static.classes[2]) for op in found.values())
    losses, numbers = model.parse_losses(model.loss(torch.randn(2, 3, 32, 32), samples()))
    losses.backward()
    assert torch.isfinite(losses) and not without_gradient(model)
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad
    model.eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        logits = model(x, mode="tensor")
        assert torch.equal(model(x, mode="tensor"), logits)
    assert logits.shape == (1, 21, 8, 8)


def test_localsoft_is_one_chain_in_the_backbone():
    """timm takes the classifier apart to get at its feature maps: the layers must still hand on to each other."""
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type="DynConvBackbone", model_name="resnet18_localsoft")).eval()
    x = torch.randn(1, 3, 64, 64)

    def second_block() -> torch.Tensor:
        with torch.no_grad(), dc.record_attention(backbone) as record:
            backbone(x)
        return record["model.layer1.1.conv1"][0].kernel

    before = second_block()
    # timm starts with the last norm of each block at zero: the second block's input does not depend on the first one's
    # convolutions, and its attention on nothing of theirs but what they hand on.
    backbone.model.layer1[0].conv1.attention.state.data += 1.0
    assert not torch.allclose(second_block(), before)
