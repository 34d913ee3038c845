"""CheckedVOCDataset: mmseg's samples, and one clear line for a broken folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

import mmseg_configs
from dynconv_plugins.errors import UserError
from mmseg_configs.one_line import message_of


def build(root, **changes):
    config = Config.fromfile(mmseg_configs.path("fpn_resnet18_diatoms-64x64")).train_dataloader.dataset
    return DATASETS.build({**config, "data_root": str(root), **changes})


def first_mask(voc):
    name = (voc / "ImageSets/Segmentation/train.txt").read_text().split()[0]
    return voc / "SegmentationClass" / f"{name}.png", voc / "JPEGImages" / f"{name}.jpg"


def test_yields_what_mmseg_does(voc):
    plain = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
    ours, theirs = build(voc, pipeline=plain), build(voc, pipeline=plain, type="PascalVOCDataset")
    assert len(ours) == len(theirs) == 8 and ours.metainfo == theirs.metainfo
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a["inputs"], b["inputs"])
        assert torch.equal(a["data_samples"].gt_sem_seg.data, b["data_samples"].gt_sem_seg.data)


IMAGES = dict(data_prefix=dict(img_path="JPEGImages"))


def test_images_without_masks(voc):
    plain = [dict(type="LoadImageFromFile", imdecode_backend="pillow"), dict(type="PackSegInputs")]
    ours, theirs = (build(voc, pipeline=plain, **IMAGES, **kind) for kind in ({}, dict(type="PascalVOCDataset")))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a["inputs"], b["inputs"]) and "gt_sem_seg" not in a["data_samples"]
    _, image = first_mask(voc)
    image.write_bytes(b"no picture")
    with pytest.raises(UserError, match=f"cannot decode [^ ]*{image.name}:"):
        ours[0]
    with pytest.raises(UserError, match="loads masks .* names no folder of them"):
        build(voc, **IMAGES)[1]


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="DYNCONV_DATA"):
        build(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_missing_file(voc, kind):
    mask, image = first_mask(voc)
    (mask if kind == "mask" else image).unlink()
    with pytest.raises(UserError, match=f"{kind} missing for 1 of 8"):
        build(voc)


def test_missing_and_empty_list(voc):
    (voc / "ImageSets/Segmentation/train.txt").write_text("")
    with pytest.raises(UserError, match="empty"):
        build(voc)
    (voc / "ImageSets/Segmentation/train.txt").unlink()
    with pytest.raises(UserError, match="missing"):
        build(voc)


def test_unknown_label(voc):
    mask, _ = first_mask(voc)
    labels = np.array(Image.open(mask))
    labels[30:34, 30:34] = 77
    Image.fromarray(labels).save(mask)
    with pytest.raises(UserError, match=f"unknown label 77 in .*{mask.name}: known are 0..20"):
        build(voc)[0]


@pytest.mark.parametrize("kind", ["image", "mask"])
@pytest.mark.parametrize("content", ["cut", "text"])
def test_undecodable_file(voc, kind, content):
    mask, image = first_mask(voc)
    path = mask if kind == "mask" else image
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "cut" else b"no picture")
    with pytest.raises(UserError, match=path.stem) as caught:
        build(voc)[0]
    assert "\n" not in str(caught.value)


def test_the_line_survives_a_worker_process(voc):
    mask, _ = first_mask(voc)
    Image.fromarray(np.full((64, 64), 99, np.uint8)).save(mask)
    loader = torch.utils.data.DataLoader(build(voc), num_workers=1, collate_fn=list)
    with pytest.raises(UserError) as caught:
        list(loader)
    assert message_of(caught.value).startswith("unknown label 99 in ") and "\n" not in message_of(caught.value)
