"""`dynconv explain` of mmsegmentation's networks: by the name of a config, by its file, with mmengine's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("mmseg")
pytest.importorskip("rich")

import mmseg_configs
from dynconv_plugins import registry
from dynconv_plugins.cli import run
from dynconv_plugins.errors import UserError
from dynconv_plugins.inspection import images, segmentors
from dynconv_plugins.inspection.layers import short_name

NAME = "fpn_resnet18-odconv_diatoms-64x64"


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "leaf.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    model = segmentors.segmentor(segmentors.config(NAME), NAME)
    with torch.no_grad():
        model.decode_head.conv_seg.bias[3] = 100.0  # the class that it sees everywhere
    path = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {"epoch": 1}}, path)
    return path


@pytest.mark.parametrize("by", ["name", "file"])
def test_a_trained_segmentor_is_explained(tmp_path, image, checkpoint, capsys, by):
    given = NAME if by == "name" else str(mmseg_configs.path(NAME))
    out = tmp_path / "out"
    args = ["explain", given, "--image", str(image), "--checkpoint", str(checkpoint), "--out", str(out)]
    assert run(args) == 0
    record = json.loads((out / "attention.json").read_text())
    assert record["input_size"] == [1, 3, 64, 64] and record["prediction"][0]["probability"] == 1
    assert len(record["layers"]) > 10 and (out / "attention.png").stat().st_size > 10_000
    assert record["prediction"][0]["class"] == "class 3" and "shares of the pixels" in capsys.readouterr().out


def test_a_config_of_elsewhere_is_explained_below_runs(tmp_path, image, monkeypatch):
    own, here = tmp_path / "elsewhere" / "own.py", tmp_path / "here"
    own.parent.mkdir()
    here.mkdir()
    own.write_text(f"_base_ = {str(mmseg_configs.path(NAME))!r}\n")
    monkeypatch.chdir(here)
    assert run(["explain", "../elsewhere/own.py", "--image", str(image)]) == 0
    assert (here / "runs/explain/own-leaf/attention.json").is_file() and [*own.parent.iterdir()] == [own]


def test_classes_have_their_names(image, tmp_path):
    name = NAME.replace("diatoms-64x64", "voc12-128x128")
    look = segmentors.subject(name, Image.open(image), image, None, {}, 32)
    assert look.names[3] == "bird" and look.x.shape == (1, 3, 32, 32) and look.title == f"{name}, leaf.png"


MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])


@pytest.mark.parametrize(
    ("says", "wanted"),
    [
        ({}, lambda rgb: (rgb - MEAN) / STD),
        ({"bgr_to_rgb": False}, lambda rgb: (rgb.flip(2) - MEAN) / STD),
        ({"mean": None, "std": None}, lambda rgb: rgb),
        ({"test_cfg": {"size_divisor": 32}}, lambda rgb: (rgb - MEAN) / STD),
    ],
    ids=["ours", "bgr", "not centred", "padded"],
)
def test_the_input_is_what_the_configs_preprocessor_makes(image, says, wanted):
    cfg = segmentors.config(NAME)
    cfg.model.data_preprocessor.update(says)
    shot = Image.open(image)
    x, shown = segmentors.seen(segmentors.segmentor(cfg, NAME), shot, 32)
    rgb = torch.from_numpy(np.array(shot.resize((32, 32)))).float()
    torch.testing.assert_close(x, wanted(rgb).permute(2, 0, 1)[None])
    torch.testing.assert_close(torch.from_numpy(shown) * 255, rgb)


def test_a_cells_input_is_its_preprocessors_too(tmp_path, image, monkeypatch):
    cfg = segmentors.config(NAME)
    cfg.model.data_preprocessor.update(mean=None, std=None)
    record = {"host": "mmseg", "network": "fpn", "operator": "odconv", "data": {"options": {"pixels": 32}}}
    monkeypatch.setattr(images, "cell", lambda _: (record, segmentors.segmentor(cfg, NAME), []))
    look = images.subject(None, image, tmp_path)
    assert look.x.shape == (1, 3, 32, 32) and look.x.max() > 100 and look.shown.max() <= 1


FEATURES = "in_channels=512, in_index=3, channels=16, num_classes=21"
HEADS = {
    "cascade": f"""
        type="CascadeEncoderDecoder",
        num_stages=2,
        neck=None,
        decode_head=[
            dict(type="FCNHead", {FEATURES}),
            dict(type="OCRHead", {FEATURES}, ocr_channels=8, norm_cfg=dict(type="BN")),
        ],""",
    "several outputs": f'neck=None, decode_head=dict(_delete_=True, type="DAHead", {FEATURES}, pam_channels=8)',
    "not by features alone": f'neck=None, decode_head=dict(_delete_=True, type="OCRHead", {FEATURES}, ocr_channels=8)',
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_of_other_kinds(tmp_path, image, monkeypatch, head):
    base = mmseg_configs.path(NAME.replace("diatoms-64x64", "voc12-128x128"))
    (tmp_path / "own.py").write_text(f"_base_ = {str(base)!r}\nmodel = dict({HEADS[head]})\n")
    monkeypatch.chdir(tmp_path)
    words = ["explain", "own.py", "--image", str(image), "--input-size", "64"]
    if head == "not by features alone":
        with pytest.raises(UserError, match="^own, leaf.png: the network cannot run on it: .*prev_output"):
            run(words)
    else:
        assert run(words) == 0
        found = json.loads(Path("runs/explain/own-leaf/attention.json").read_text())["prediction"]
        assert found and not any(entry["class"].startswith("class ") for entry in found), "not VOC's own names"


@pytest.mark.parametrize("name", registry.names())
def test_operators_by_conv_cfg_have_their_short_names(name):
    from mmengine.registry import MODELS

    import mmseg_configs.register  # noqa: F401 - puts them there

    assert short_name(MODELS.get(name)(8, 8, 3)) == name


def test_scores_must_be_a_tensor(image):
    look = segmentors.subject(NAME, Image.open(image), image, None, {}, 32)
    with pytest.raises(UserError, match="returns no scores of classes but a dict"):
        look.top([{}])


def test_checkpoints_of_safetensors(tmp_path, image, checkpoint):
    save_file = pytest.importorskip("safetensors.torch").save_file
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    save_file(stored, tmp_path / "weights.safetensors")
    look = segmentors.subject(NAME, Image.open(image), image, tmp_path / "weights.safetensors", {}, None)
    assert torch.equal(look.model.decode_head.conv_seg.bias, stored["decode_head.conv_seg.bias"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "w.pth cannot be read as weights: "),
        (b"\x80\x02}q\x00cother\nThing\n", "w.pth (holds a|is damaged)"),
        (nn.Linear(1, 1), "w.pth holds a torch.nn.modules.linear.Linear, which is not unpickled"),
        ({"epoch": 1}, "w.pth: not a state dict"),
    ],
    ids=["empty", "damaged", "a whole model", "no weights"],
)
def test_checkpoints_that_are_none(tmp_path, image, content, says):
    path = tmp_path / "w.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=says) as raised:
        segmentors.subject(NAME, Image.open(image), image, path, {}, None)
    said = str(raised.value)
    assert said.isprintable() and "weights_only" not in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fpn_resnet18-odconv_diatom-64x64"], "did you mean fpn_resnet18-odconv_diatoms-64x64"),
        (["gone.py"], "no config gone.py"),
        ([NAME, "--operator-arg", "num_kernels=4"], "as its config says"),
        (["fpn_resnet18_diatoms-64x64"], "has no dynamic convolution"),
        ([NAME, "--checkpoint", "gone.pth"], "checkpoint gone.pth does not exist"),
        ([NAME, "--checkpoint", "leaf.png"], "checkpoint leaf.png is damaged"),
        (["empty.py"], "is no config of mmsegmentation"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, image, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.py").write_text("a = 1\n")
    with pytest.raises(UserError, match=says) as raised:
        run(["explain", *words, "--image", "leaf.png"])
    assert "\n" not in str(raised.value) and not (tmp_path / "runs").exists()
