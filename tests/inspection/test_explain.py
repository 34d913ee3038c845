"""`dynconv explain`: the numbers are the operators' own, every operator is covered, mistakes are one line."""

from __future__ import annotations

import json
import math
import shutil
import sys

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("timm")
pytest.importorskip("rich")

import timm
from PIL import Image

import dynconv_plugins as dc
import timm_models  # noqa: F401 - registers the models
from dynconv_plugins.cli import run
from dynconv_plugins.errors import UnknownName, UserError
from dynconv_plugins.inspection.canvas import MOST
from dynconv_plugins.inspection.draw import draw, leading, plt
from dynconv_plugins.inspection.images import subject
from dynconv_plugins.inspection.layers import explain
from dynconv_plugins.inspection.summary import as_json


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "leaf.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    return path


def small(operator: str, **options) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Flatten(), nn.LazyLinear(3)
    )
    network(torch.zeros(1, 3, 12, 12))
    return dc.dynamize(network, operator, where="blocks", keep_weights=False, **options).eval()


X = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(1))

# What each operator's layers have, beside `kernel_map` where weights differ by position.
FACTORS = {
    "condconv": {"kernel"},
    "dyconv": {"kernel"},
    "dcd": {"output", "mixing"},
    "odconv": {"spatial", "input", "output"},
    "odconv4x": {"kernel", "spatial", "input", "output"},
    "a2d2c": {"kernel"},
    "a2d2cplus": {"kernel"},
    "globalsoft": {"input"},
    "localsoft": {"kernel"},
    "hard": {"output"},
    "orconv": {"kernel"},
    "fdconv": {"kernel"},
}


@pytest.mark.parametrize("operator", dc.registry.names())
def test_every_operator_is_covered(operator):
    model = small(operator)
    layers, y = explain(model, X)
    assert [layer.name for layer in layers] == ["2", "4"] and y.shape == (1, 3)
    assert {layer.operator for layer in layers} == {operator}
    for layer, entry in zip(layers, as_json(layers), strict=True):
        assert set(entry["factors"]) == FACTORS[operator]
        assert (layer.kernel_map is not None) == (operator in ("localsoft", "orconv"))
        for factor in entry["factors"].values():
            assert np.shape(factor["values"]) == tuple(factor["shape"])
    figure = draw(layers, np.zeros((12, 12, 3)), "title", "about", [("one", 0.7), ("two", 0.3)])
    figure.canvas.draw()
    plt.close(figure)


def test_numbers_are_those_of_the_attention():
    model = small("odconv4x")
    layers, _ = explain(model, X)
    with dc.record_attention(model) as seen, torch.no_grad():
        model(X)
    for layer in layers:
        (attention,) = seen[layer.name]
        for name in ("kernel", "spatial", "input", "output"):
            np.testing.assert_array_equal(getattr(layer, name), getattr(attention, name)[0].numpy())
        p = attention.kernel[0].double()
        assert layer.entropy == pytest.approx(float(-(p * p.log()).sum() / math.log(4)), rel=1e-5)
    entry = as_json(layers)[0]["factors"]
    gates = seen["2"][0].input[0].numpy()
    assert entry["input"]["mean"] == pytest.approx(gates.mean()) and entry["input"]["shape"] == [8]
    assert entry["input"]["below_half"] == pytest.approx((gates < 0.5).mean())
    assert entry["kernel"]["strongest"] == f"kernel {int(seen['2'][0].kernel.argmax()) + 1}"


def test_localsoft_by_position():
    layers, _ = explain(small("localsoft", num_kernels=3), X)
    assert [layer.kernel_map.shape for layer in layers] == [(3, 8, 8), (3, 6, 6)]
    for layer in layers:
        np.testing.assert_allclose(layer.kernel_map.sum(0), 1, rtol=1e-5)
        np.testing.assert_allclose(layer.kernel, layer.kernel_map.mean((1, 2)), rtol=1e-5)
        first = as_json([layer])[0]["factors"]["kernel"]["by_position"]["first_at"]
        assert sum(first) == pytest.approx(1)


def test_the_winning_rotation_is_the_one_whose_answer_the_layer_gives():
    torch.manual_seed(0)
    conv = dc.ORConv2d(2, 5, 3, padding=1, bias=False).eval()
    x = torch.randn(1, 2, 7, 7)
    (layer,), y = explain(conv, x)
    answers = torch.stack([nn.functional.conv2d(x, k, padding=1)[0] for k in conv.kernels.detach()])
    torch.testing.assert_close(answers.max(0).values[None], y)
    winners = answers.argmax(0)
    for r in range(4):
        np.testing.assert_allclose(layer.kernel_map[r], (winners == r).float().mean(0).numpy(), atol=1e-6)
    assert layer.labels == ["0°", "90°", "180°", "270°"]
    (plain,), _ = explain(dc.ORConv2d(2, 5, 1).eval(), x)
    assert plain.kernel_map is None, "a single tap has no rotations"


def test_hard_counts_what_is_on():
    model = small("hard")
    layer = model[2].attention.logits
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -1, 1, -1, 1, 1]))
    (first, _), _ = explain(model, X)
    np.testing.assert_array_equal(first.output, [1, 0, 1, 0, 1, 1])
    task = small("hard", mask="task")
    with torch.no_grad():
        task[2].zeta[:, :2] = -1
    (first, _), _ = explain(task, X)
    np.testing.assert_allclose(first.mask, np.full(6, 6 / 8))
    assert first.output is None and "task mask" in first.gates


def test_leading_colours():
    weights = np.array([[[0.7, 0.25]], [[0.1, 0.25]], [[0.1, 0.25]], [[0.1, 0.25]]])
    colours, ahead = leading(weights)
    assert colours.shape == (1, 2, 3) and ahead[0, 1] == 0 and 0 < ahead[0, 0] < 1
    assert leading(np.array([[[1.0]], [[0.0]]]))[1] == 1


def test_many_layers_are_drawn_in_part():
    torch.manual_seed(0)
    network = dc.dynamize(nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(30))), "odconv4x", "all").eval()
    layers, _ = explain(network, torch.randn(1, 2, 6, 6))
    figure = draw(layers, np.zeros((6, 6, 3)), "title", "about", [])
    said = " ".join(t.get_text() for part in figure.subfigs for t in part.texts)
    assert f"{MOST} of 30 layers" in said and len(as_json(layers)) == 30
    plt.close(figure)


def trained(tmp_path, **options):
    """A checkpoint as our trainer writes it."""
    torch.manual_seed(3)
    model = timm.create_model("mobilenetv2_050_odconv", num_classes=7, **options)
    state = {"state_dict": model.state_dict(), "arch": "mobilenetv2_050_odconv", "epoch": 1}
    state["args"] = {"model": "mobilenetv2_050_odconv", "model_kwargs": options, "input_size": [3, 32, 32]}
    torch.save(state, tmp_path / "last.pth.tar")
    return model.eval(), tmp_path / "last.pth.tar"


def test_the_command_with_a_checkpoint(tmp_path, image, capsys):
    model, checkpoint = trained(tmp_path, num_kernels=2)
    out = tmp_path / "out"
    words = ["--image", str(image), "--checkpoint", str(checkpoint), "--out", str(out)]
    assert run(["explain", "mobilenetv2_050_odconv", *words]) == 0
    printed = capsys.readouterr().out
    assert "strongest kernel" in printed and "prediction: class" in printed and str(checkpoint) in printed
    assert sorted(p.name for p in out.iterdir()) == ["attention.json", "attention.png"]
    with Image.open(out / "attention.png") as drawn:
        assert drawn.format == "PNG" and drawn.size[0] > 1000
    record = json.loads((out / "attention.json").read_text())
    assert record["input_size"] == [1, 3, 32, 32] and len(record["prediction"]) == 5
    layers = dc.operators_in(model)
    assert [entry["layer"] for entry in record["layers"]] == list(layers)
    assert {len(e["factors"]["kernel"]["values"]) for e in record["layers"]} == {2}
    chances = [entry["probability"] for entry in record["prediction"]]
    assert chances == sorted(chances, reverse=True) and sum(chances) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("given", "built", "channels"),
    [
        ({"in_chans": 1, "img_size": 32}, {"in_chans": 1}, 1),
        ({"input_size": [1, 32, 32]}, {"in_chans": 1}, 1),
        ({"input_size": [3, 32, 32], "gp": "catavgmax"}, {"global_pool": "catavgmax"}, 3),
        ({"input_size": [3, 32, 32]}, {"anneal_steps": 5}, 3),
    ],
    ids=["in_chans", "input_size", "gp", "annealed itself"],
)
def test_a_network_is_built_as_it_was_trained(tmp_path, image, given, built, channels):
    model = timm.create_model("mobilenetv2_050_odconv", num_classes=7, **built)
    torch.save({"state_dict": model.state_dict(), "args": given}, tmp_path / "last.pth.tar")
    looked = subject("mobilenetv2_050_odconv", image, tmp_path / "last.pth.tar")
    assert looked.x.shape == (1, channels, 32, 32) and looked.shown.shape == (32, 32, 3)
    assert looked.model(looked.x).shape == (1, 7)
    expected = Image.open(image).convert("L" if channels == 1 else "RGB")
    mean = np.asarray(expected, np.float32).mean() / 255
    assert looked.shown.mean() == pytest.approx(mean, abs=0.05)


def test_an_untrained_network_is_the_same_every_time(tmp_path, image, capsys):
    for name in ("a", "b"):
        words = ["--image", str(image), "--input-size", "32", "--operator-arg", "where=initial"]
        run(["explain", "mobilenetv2_050_odconv", *words, "--out", str(tmp_path / name)])
    one, other = ((tmp_path / name / "attention.json").read_text() for name in ("a", "b"))
    assert one == other and [e["layer"] for e in json.loads(one)["layers"]] == ["conv_stem"]
    assert "random" in capsys.readouterr().out


def test_other_weights_are_written_elsewhere(tmp_path, image, capsys, monkeypatch):
    _, checkpoint = trained(tmp_path)
    (tmp_path / "other").mkdir()
    shutil.copy(checkpoint, tmp_path / "other" / "last.pth.tar")
    monkeypatch.chdir(tmp_path)
    for weights in ([], ["--checkpoint", "last.pth.tar"], ["--checkpoint", "other/last.pth.tar"]):
        run(["explain", "mobilenetv2_050_odconv", "--image", str(image), *weights])
    assert len(list((tmp_path / "runs" / "explain").glob("*/attention.json"))) == 3


def mistakes(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "cell.json").write_text("{")
    good, net = ["--image", str(tmp_path / "leaf.png")], "mobilenetv2_050_odconv"
    return {
        "unknown model": ([net + "v", *good], "did you mean"),
        "of a series": (["ODConvFCN", *good], "ODConvFCN looks at a series: --series FILE"),
        "no model": (good, "name a model"),
        "static": (["resnet18", *good], "resnet18 has no dynamic convolution; try resnet18_odconv"),
        "no image": ([net, "--image", str(tmp_path / "none.png")], "no image"),
        "not an image": ([net, "--image", str(tmp_path / "text.png")], "cannot be read as an image"),
        "no checkpoint": ([net, *good, "--checkpoint", str(tmp_path / "none.pth")], "does not exist"),
        "damaged": ([net, *good, "--checkpoint", str(tmp_path / "cut.pth")], "cut.pth"),
        "does not fit": (
            [net, *good, "--checkpoint", str(tmp_path / "other.pth")],
            "does not fit mobilenetv2_050_odconv",
        ),
        "no cell": ([net, *good, "--checkpoint", str(tmp_path / "folder")], "without cell.json"),
        "damaged cell": ([*good, "--checkpoint", str(tmp_path / "cell")], "is damaged"),
        "another model": (
            ["resnet18_hard", *good, "--checkpoint", str(tmp_path / "last.pth.tar")],
            "is of mobilenetv2",
        ),
        "bad argument": ([net, *good, "--operator-arg", "kernels=2"], "unknown model argument 'kernels'"),
        "bad value": ([net, *good, "--operator-arg", "num_kernels=0"], "num_kernels"),
        "too small": ([net, *good, "--input-size", "4"], "--input-size"),
        "operator": ([net, *good, "--operator", "hard"], "--operator goes with --series"),
        "index": ([net, *good, "--index", "1"], "--index goes with --series"),
        "argument of a cell": (
            [*good, "--checkpoint", str(tmp_path / "cell"), "--operator-arg", "num_kernels=2"],
            "leave --operator-arg out",
        ),
        "out": ([net, *good, "--input-size", "32", "--out", str(tmp_path / "text.png")], "is not a folder"),
    }


WHICH = (
    "unknown model, of a series, no model, static, no image, not an image, no checkpoint, damaged, does not fit, "
    "no cell, damaged cell, another model, bad argument, bad value, too small, operator, index, argument of a cell, out"
)


@pytest.mark.parametrize("which", WHICH.split(", "))
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, image, which, monkeypatch):
    trained(tmp_path)
    words, says = mistakes(tmp_path)[which]
    monkeypatch.chdir(tmp_path)
    before = {p: p.stat().st_size for p in tmp_path.rglob("*")}
    with pytest.raises(UserError, match=says) as caught:
        run(["explain", *words])
    assert "\n" not in str(caught.value)
    assert {p: p.stat().st_size for p in tmp_path.rglob("*")} == before
    if which == "unknown model":
        assert isinstance(caught.value, UnknownName)


def test_an_unknown_name_is_said_to_be_one_without_tsai(image, monkeypatch):
    monkeypatch.setitem(sys.modules, "tsai", None)  # which is how Python remembers that there is none
    monkeypatch.delitem(sys.modules, "tsai_models", raising=False)
    with pytest.raises(UnknownName, match="did you mean resnet18_odconv"):
        subject("resnet18_odcon", image)
