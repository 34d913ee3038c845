"""`dynconv models`: right counts, filters, and what a machine reads."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

pytest.importorskip("timm")
pytest.importorskip("rich")
pytest.importorskip("fvcore")

import timm

import dynconv_plugins as dc
import timm_models
from dynconv_plugins.cli import run
from dynconv_plugins.errors import UnknownName, UserError
from dynconv_plugins.inspection.catalogue import entries
from dynconv_plugins.inspection.costs import Unfilled, latency, macs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dynconv" / "counts.json"


def listed(capsys, *words: str) -> list[dict]:
    assert run(["models", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["models"]


@pytest.mark.parametrize("operator", dc.registry.names())
def test_counts_are_those_of_complexity(operator):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 6, 3, 2), nn.Flatten())
    network.append(nn.Linear(6 * 4 * 4, 5))
    model = dc.dynamize(network, operator, where="all").eval()
    for batch in (1, 3):
        size = (batch, 3, 13, 13)
        assert macs(model, size) == dc.complexity(model, size).macs


def test_counts_of_a_whole_network():
    with Unfilled():
        model = timm.create_model("mobilenetv2_050_odconv4x").eval()
    counted = dc.complexity(model, (1, 3, 64, 64))
    assert macs(model, (1, 3, 64, 64)) == counted.macs
    real = timm.create_model("mobilenetv2_050_odconv4x")
    assert counted.params == sum(p.numel() for p in real.parameters())


def test_json_filters_and_order(capsys):
    rows = listed(
        capsys, "mobilenetv2_050_[dh]*", "--host", "timm", "--input-size", "32", "--no-latency", "--sort", "macs"
    )
    assert {row["name"] for row in rows} == set(timm_models.list_models("mobilenetv2_050_[dh]*"))
    assert [row["macs"] for row in rows] == sorted(row["macs"] for row in rows)
    assert all(row["latency_ms"] is None and row["input_size"] == [1, 3, 32, 32] for row in rows)
    most = sorted(row["params"] for row in rows)[1]
    words = ["--host", "timm", "--input-size", "32", "--no-latency", "--max-params", f"{most}"]
    fewer = listed(capsys, "mobilenetv2_050_[dh]*", *words)
    assert {row["name"] for row in fewer} == {row["name"] for row in rows if row["params"] <= most}
    (row,) = listed(capsys, "mobilenetv2_050", "--host", "timm", "--operator", "hard", "--input-size", "32")
    assert row["operator"] == "hard" and row["name"] == "mobilenetv2_050_hard"


def test_counts_are_kept(capsys, cache, monkeypatch):
    words = ("mobilenetv2_050_hard", "--host", "timm", "--input-size", "32", "--no-latency")
    (row,) = listed(capsys, *words)
    stored = json.loads(cache.read_text())
    assert list(stored["counts"].values()) == [[row["params"], row["macs"]]]
    stored["counts"] = {key: [5, 6] for key in stored["counts"]}
    cache.write_text(json.dumps(stored))
    assert [(r["params"], r["macs"]) for r in listed(capsys, *words)] == [(5, 6)]
    cache.write_text(json.dumps({**stored, "state": "that of other sources"}))
    assert listed(capsys, *words) == [row]
    cache.write_text("damaged")
    assert listed(capsys, *words) == [row]
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))  # a file: nothing can be kept there
    assert listed(capsys, *words) == [row]


def test_latency_where_few_are_left(capsys):
    (row,) = listed(capsys, "mobilenetv2_050_static", "--host", "timm", "--input-size", "32", "--batch", "2")
    low, middle, high = row["latency_ms"]
    assert 0 < low <= middle <= high and row["input_size"] == [2, 3, 32, 32]


def test_what_cannot_be_timed_is_told_and_stays(capsys, monkeypatch):
    def full(model, x):
        raise RuntimeError("not enough memory: you tried to allocate 1 TB")

    monkeypatch.setattr("dynconv_plugins.inspection.costs.latency", full)
    words = ["mobilenetv2_050_static", "--host", "timm", "--input-size", "32", "--sort", "latency"]
    run(["models", *words])
    shown = capsys.readouterr()
    assert "mobilenetv2_050_static" in shown.out and "is not timed: not enough memory" in shown.err


def test_latency_grows_with_the_work():
    torch.manual_seed(0)
    small, large = (nn.Conv2d(c, c, 3).eval() for c in (2, 64))
    assert latency(small, torch.randn(1, 2, 32, 32), 0.2)[1] < latency(large, torch.randn(1, 64, 32, 32), 0.2)[1]


def test_the_table(capsys):
    run(["models", "mobilenetv2_050_od*", "--host", "timm", "--input-size", "32", "--no-latency"])
    shown = capsys.readouterr()
    assert "mobilenetv2_050_odconv4x" in shown.out and "4.44M" in shown.out and shown.err == ""
    run(["models", "mobilenetv2_050_odconv", "--host", "timm", "--max-macs", "1k", "--input-size", "32"])
    assert "no model fits these filters" in capsys.readouterr().err


def test_every_host_is_in_the_catalogue():
    pytest.importorskip("mmseg")
    pytest.importorskip("tsai")
    import mmseg_configs
    from tsai_models.archs import ARCHS

    notes: list[str] = []
    found = entries(("timm", "mmseg", "tsai"), notes.append)
    assert notes == [] and len({e.name for e in found}) == len(found)
    assert {e.name for e in found} == {*timm_models.list_models(), *mmseg_configs.names(), *ARCHS}
    assert {e.operator for e in found} == {"static", *dc.registry.names()}


def test_mmseg_and_tsai_are_counted(capsys):
    pytest.importorskip("mmseg")
    pytest.importorskip("tsai")
    (row,) = listed(capsys, "fpn_resnet18-odconv_diatoms*", "--no-latency")
    assert row["host"] == "mmseg" and row["input_size"] == [1, 3, 64, 64] and row["params"] > 11e6
    rows = listed(capsys, "--host", "tsai", "--operator", "hard", "--no-latency")
    assert {row["name"] for row in rows} == {"Net1_DCNN", "Net2_DCNN", "ODConvFCN", "ODConvResNet", "ODConvInception"}
    assert all(row["operator"] == "hard" and row["macs"] > 0 for row in rows)


def test_a_missing_host_is_left_out(monkeypatch):
    for module in ("mmseg", "tsai"):
        monkeypatch.setitem(sys.modules, module, None)  # which is how Python remembers that there is none
    notes: list[str] = []
    assert entries(("mmseg", "tsai"), notes.append) == []
    assert [note.split(" ", 1)[0] for note in notes] == ["mmseg", "tsai"] and "pip install" in notes[0]


def test_mistakes(capsys):
    with pytest.raises(UnknownName, match="did you mean resnet18_odconv"):
        run(["models", "resnet18_odcnv", "--host", "timm"])
    with pytest.raises(UnknownName, match="did you mean odconv"):
        run(["models", "--operator", "odcnv"])
    with pytest.raises(UserError, match="--no-latency"):
        run(["models", "--sort", "latency", "--no-latency"])
    for words in (["--max-params", "many"], ["--input-size", "0"], ["--batch", "-1"], ["--host", "keras"]):
        with pytest.raises(SystemExit) as caught:
            run(["models", *words])
        assert caught.value.code == 2
        capsys.readouterr()
