"""`dynconv explain` of mmsegmentation's networks: by the name of a config, by its file, with mmengine's checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmseg")
pytest.importorskip("rich")

import mmseg_configs
from dynconv_plugins.cli import run
from dynconv_plugins.inspection import segmentors

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


def test_the_input_is_what_mmseg_itself_makes(image):
    """Of a square image: pixels in RGB, centred and scaled as the config's preprocessor does it."""
    cfg = segmentors.config(NAME)
    before = segmentors.segmentor(cfg, NAME).data_preprocessor
    square = Image.open(image).resize((64, 64))
    bgr = torch.from_numpy(np.array(square)[..., ::-1].copy()).permute(2, 0, 1)
    theirs = before({"inputs": [bgr]})["inputs"]
    torch.testing.assert_close(segmentors.seen(square, 64)[0], theirs)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fpn_resnet18-odconv_diatom-64x64"], "did you mean fpn_resnet18-odconv_diatoms-64x64"),
        (["gone.py"], "no config gone.py"),
        ([NAME, "--operator-arg", "num_kernels=4"], "as its config says"),
        (["fpn_resnet18_diatoms-64x64"], "has no dynamic convolution"),
        ([NAME, "--checkpoint", "gone.pth"], "no checkpoint gone.pth"),
        ([NAME, "--checkpoint", "leaf.png"], "cannot be read"),
        (["empty.py"], "is no config of mmsegmentation"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, image, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.py").write_text("a = 1\n")
    from dynconv_plugins.errors import UserError

    with pytest.raises(UserError, match=says) as raised:
        run(["explain", *words, "--image", "leaf.png"])
    assert "\n" not in str(raised.value) and not (tmp_path / "runs").exists()
