"""`dynconv explain` for series, and for the cells of a study."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("tsai")
pytest.importorskip("rich")

from dynconv_plugins import datasets
from dynconv_plugins.cli import run
from dynconv_plugins.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return datasets.diatoms.make(tmp_path_factory.mktemp("diatoms"), classes=3, train=4, test=2)


@pytest.fixture
def out(tmp_path, data, monkeypatch):
    monkeypatch.setenv("DYNCONV_DATA", str(data))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def record(out) -> dict:
    return json.loads((out / "attention.json").read_text())


def test_a_data_set_by_name_and_a_file(out, data, capsys):
    assert run(["explain", "ODConvFCN", "--series", "Diatoms", "--index", "2", "--out", str(out)]) == 0
    by_name = record(out)
    assert by_name["input_size"] == [1, 1, 176] and len(by_name["prediction"]) == 3
    assert [entry["layer"] for entry in by_name["layers"]] == ["convblock2.0", "convblock3.0"]
    assert by_name["layers"][0]["factors"]["spatial"]["shape"] == [5]
    file = data / "UCR" / "Diatoms" / "Diatoms_TEST.tsv"
    run(["explain", "ODConvFCN", "--series", str(file), "--index", "2", "--out", str(out)])
    assert record(out)["layers"] == by_name["layers"]
    assert "convblock2.0" in capsys.readouterr().out and (out / "attention.png").stat().st_size > 10_000


def test_where_a_data_set_lies(out, data, tmp_path, monkeypatch):
    """Given, or in ./data as for the trainer; the built-in series are drawn."""
    monkeypatch.delenv("DYNCONV_DATA")
    words = ["explain", "ODConvFCN", "--out", str(out), "--series"]
    with pytest.raises(UserError, match="^no UCR archive found: give --data DIR .*set DYNCONV_DATA, or take Diatoms"):
        run([*words, "Oaks"])
    oaks = tmp_path / "elsewhere" / "UCR" / "Oaks"
    oaks.mkdir(parents=True)
    for part in ("TRAIN", "TEST"):
        (oaks / f"Oaks_{part}.tsv").symlink_to(data / "UCR" / "Diatoms" / f"Diatoms_{part}.tsv")
    run([*words, "Oaks", "--data", "elsewhere"])
    given = record(out)
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    run([*words, "Oaks"])
    assert record(out) == given and given["input_size"] == [1, 1, 176]
    run([*words, "Diatoms"])
    assert record(out)["input_size"] == [1, 1, 176] and not (tmp_path / "data" / "UCR" / "Diatoms").exists()


@pytest.mark.parametrize("arch", ["FCN", "ODConvFCN"])
def test_another_operator_and_its_arguments(out, arch):
    words = ["--series", "Diatoms", "--operator", "localsoft", "--operator-arg", "num_kernels=3"]
    run(["explain", arch, *words, "--out", str(out)])
    layers = record(out)["layers"]
    assert {entry["operator"] for entry in layers} == {"localsoft"}
    assert layers[0]["factors"]["kernel"]["by_position"]["shape"] == [3, 176]


def trained(folder, arch="ODConvFCN", classes=3, **config):
    """What our trainer leaves in its folder."""
    from tsai_models.archs import build, find

    torch.manual_seed(5)
    model = build(find(arch), 1, classes, 176, **config).eval()
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "model.pth")
    own = {"arch": arch, "static": False, "classes": classes, "operator": config.get("operator"), "operator_args": {}}
    (folder / "results.json").write_text(json.dumps({"config": own, "rows": []}))
    np.savez(folder / "predictions.npz", truth_0=[0], predicted_0=[0], classes=np.array(["a", "b", "c"]))
    return model


def test_weights_of_our_trainer(out, tmp_path, data):
    model = trained(tmp_path / "run", operator="dyconv")
    words = ["explain", "--series", "Diatoms", "--out", str(out), "--checkpoint"]
    run([*words, str(tmp_path / "run" / "model.pth")])
    one = record(out)
    assert {entry["operator"] for entry in one["layers"]} == {"dyconv"}
    X, _, (_, test) = datasets.ucr.load(data / "UCR", "Diatoms")
    x = torch.from_numpy(X[test[:1]]).float()
    x = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)
    with torch.no_grad():
        chances = model(x)[0].softmax(0)
    best = int(chances.argmax())
    assert one["prediction"][0]["class"] == f"class {'abc'[best]}"
    assert one["prediction"][0]["probability"] == pytest.approx(float(chances[best]), rel=1e-4)
    run([*words, str(tmp_path / "run")])
    assert record(out)["layers"] == one["layers"]


def series_cell(folder, recipe="study"):
    from dynconv_plugins.study.hosts import series

    shape = {"variables": 1, "length": 176}
    about = {"host": "tsai", "network": "FCN", "operator": "odconv4x", "where": None, "arguments": {}}
    about |= {"recipe": recipe, "options": {}, "data": {"classes": 3, "options": shape}}
    model = series.build(about)
    (folder / "run").mkdir(parents=True)
    torch.save(model.state_dict(), folder / "run" / "model.pth")
    (folder / "cell.json").write_text(json.dumps(about))
    (folder / "metrics.json").write_text(json.dumps({"score": 0.5, "per_class": {"oak": 1, "elm": 0, "yew": 0}}))
    return folder


def test_a_network_that_reads_differences_as_well(out, tmp_path):
    """That of the strong recipe: the series and its first differences are two variables."""
    cell = series_cell(tmp_path / "cell", recipe="strong")
    words = ["explain", "--series", "Diatoms", "--out", str(out), "--checkpoint"]
    run([*words, str(cell)])
    one = record(out)
    assert one["input_size"] == [1, 2, 176]
    own = {"arch": "ODConvFCN", "static": False, "classes": 3, "operator": "odconv4x", "operator_args": {}}
    own |= {"recipe": {"differences": 1}}
    (cell / "run" / "results.json").write_text(json.dumps({"config": own, "rows": []}))
    run([*words, str(cell / "run" / "model.pth")])
    assert record(out)["layers"] == one["layers"]


def test_a_studys_cell(out, tmp_path):
    cell = series_cell(tmp_path / "cell")
    run(["explain", "--series", "Diatoms", "--checkpoint", str(cell), "--out", str(out)])
    one = record(out)
    assert "FCN with odconv4x" in one["title"]
    assert {entry["operator"] for entry in one["layers"]} == {"odconv4x"}
    assert {entry["class"] for entry in one["prediction"]} == {"oak", "elm", "yew"}
    (cell / "run" / "model.pth").unlink()
    with pytest.raises(UserError, match="no weights in"):
        run(["explain", "--series", "Diatoms", "--checkpoint", str(cell), "--out", str(out)])


MISTAKES = {
    "unknown architecture": (["ODConvFCM", "--series", "Diatoms"], "did you mean ODConvFCN"),
    "none": (["--series", "Diatoms"], "name an architecture"),
    "static": (["FCN", "--series", "Diatoms"], "FCN has no dynamic convolution; add --operator"),
    "unknown data": (["ODConvFCN", "--series", "Diatom"], "Diatom"),
    "no file": (["ODConvFCN", "--series", "none.tsv"], "no file none.tsv"),
    "index": (["ODConvFCN", "--series", "Diatoms", "--index", "99"], "there are 6 series"),
    "argument": (["ODConvFCN", "--series", "Diatoms", "--operator-arg", "kernels=2"], "kernels"),
    "another": (["ODConvResNet", "--series", "Diatoms", "--checkpoint", "run"], "is of ODConvFCN, not of ODConvResNet"),
    "another cell": (["ODConvResNet", "--series", "Diatoms", "--checkpoint", "cell"], "is of FCN, not of ODConvResNet"),
    "a cell's operator": (["--series", "Diatoms", "--checkpoint", "cell", "--operator", "hard"], "leave --operator"),
    "size": (["ODConvFCN", "--series", "Diatoms", "--input-size", "64"], "--input-size goes with --image"),
    "damaged results": (["--series", "Diatoms", "--checkpoint", "damaged"], "results.json is damaged"),
    "data of an image": (["resnet18_odconv", "--image", "leaf.png", "--data", "."], "--data goes with --series"),
    "image": (["--image", "leaf.png", "--checkpoint", "cell"], "give --series instead of --image"),
}


@pytest.mark.parametrize("which", list(MISTAKES))
def test_a_mistake_is_one_line(out, tmp_path, which):
    words, says = MISTAKES[which]
    if which == "another":
        trained(tmp_path / "run")
    if "cell" in which or which == "image":
        series_cell(tmp_path / "cell")
    if which == "damaged results":
        trained(tmp_path / "damaged")
        (tmp_path / "damaged" / "results.json").write_text("[1]")
    if which == "image":
        from PIL import Image

        Image.new("RGB", (8, 8)).save(tmp_path / "leaf.png")
    with pytest.raises(UserError, match=says) as caught:
        run(["explain", *words, "--out", str(out)])
    assert "\n" not in str(caught.value) and not out.exists()
