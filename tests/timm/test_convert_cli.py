"""``dynconv convert``: a file that timm loads, or one line and no file."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")

import published_layouts as published
import timm

from dynconv_plugins.cli import run
from dynconv_plugins.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What the authors' trainer saves, with five classes."""
    path = tmp_path_factory.mktemp("source") / "model_best.pth.tar"
    weights = published.fill(published.mobilenetv2(0.5, 1, 5))
    torch.save({"epoch": 150, "state_dict": {f"module.{k}": v for k, v in weights.items()}, "optimizer": {}}, path)
    return path


def convert(source, out, model="mobilenetv2_050_odconv", kwargs=("num_classes=5",)):
    return run(["convert", str(source), "--model", model, "--model-kwargs", *kwargs, "--out", str(out)])


def test_timm_loads_what_it_writes(source, tmp_path, capsys):
    out = tmp_path / "converted.safetensors"
    convert(source, out)
    assert capsys.readouterr().out == f"{out}: 773 entries for mobilenetv2_050_odconv\n"
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    model = timm.create_model("mobilenetv2_050_odconv", num_classes=5, checkpoint_path=out)
    stem = torch.load(source, weights_only=True)["state_dict"]["module.features.0.0.weight"]
    assert torch.equal(model.conv_stem.weight, stem)
    again = tmp_path / "again.safetensors"
    convert(out, again)
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"model": "mobilenetv2_050_odconf"},
            "unknown model 'mobilenetv2_050_odconf'; did you mean mobilenetv2_050_odconv",
        ),
        ({"kwargs": ["num_classes=6"]}, "the source has 5 classes, the model 6"),
        ({"kwargs": ["num_classes=five"]}, "cannot be built with --model-kwargs num_classes=five"),
        ({"kwargs": ["num_clases=5"]}, "did you mean num_classes"),
        ({"kwargs": ["num_classes"]}, "--model-kwargs takes NAME=VALUE, got num_classes"),
        ({"out": "converted.pt"}, "must end in .safetensors"),
        ({"out": "nowhere/converted.safetensors"}, "nowhere does not exist"),
        ({"source": "missing.pth"}, "missing.pth does not exist"),
        ({"source": "damaged.pth"}, "damaged, or holds more than weights and plain values"),
        ({"source": "pickled.pth"}, "holds a torch.nn.modules.linear.Linear, which is not unpickled: save"),
        ({"source": "damaged.safetensors"}, "cannot be read as weights"),
    ],
    ids=lambda v: None if isinstance(v, str) else "-".join(map(str, v.values())),
)
def test_one_line_and_no_file(source, tmp_path, arguments, says):
    (tmp_path / "damaged.pth").write_bytes(b"no checkpoint")
    (tmp_path / "damaged.safetensors").write_bytes(b"no checkpoint")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "pickled.pth")
    before = sorted(tmp_path.iterdir())
    paths = {"source": str(source), "out": "converted.safetensors"} | arguments
    paths |= {name: str(tmp_path / paths[name]) for name in ("source", "out")}
    with pytest.raises(UserError) as caught:
        convert(**paths)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_failed_write_leaves_the_old_file(source, tmp_path, monkeypatch):
    out = tmp_path / "converted.safetensors"
    out.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        convert(source, out)
    assert caught.value.filename == str(out)
    assert [p.name for p in tmp_path.iterdir()] == [out.name] and out.read_bytes() == b"old"
