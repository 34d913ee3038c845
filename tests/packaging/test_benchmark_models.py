"""The benchmarks of whole networks and of attention heads: their commands run, and their figures mean what they say."""

from __future__ import annotations

import copy
import json
import math
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("timm", reason="timm comes with the timm extra")
pytest.importorskip("matplotlib", reason="matplotlib comes with the study extra")
pytest.importorskip("rich", reason="rich comes with the study extra")

import timm

import dynconv_plugins as dc
from benchmarks import cell, ideas, isolated, networks, operators, timing
from dynconv_plugins.study import memory

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--batch", "2", "--seconds", "0", "--threads", "1")


def run(module: str, *args: object, code: int = 0) -> subprocess.CompletedProcess:
    """Runs a benchmark, which must end with `code`."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == code, done.stderr[-2000:]
    return done


@pytest.mark.slow
def test_networks(tmp_path):
    pytest.importorskip("tsai", reason="tsai comes with the tsai extra")
    report, picture = tmp_path / "models.json", tmp_path / "models.png"
    args = ("--networks", "resnet18", "fcn", "--operators", "odconv", "--sizes", 32, "--lengths", 16)
    run("models", *args, *QUICK, "--passes", "train", "--json", report, "--plot", picture)
    rows = json.loads(report.read_text())["rows"]
    assert [(row["network"], row["size"], row["train"]) for row in rows] == [("resnet18", 32, True), ("fcn", 16, True)]
    for row in rows:
        assert set(row["ratio"]) == {"static", "engine", "grouped"} and not row["refused"]
        medians = {side: t["median"] for side, t in row["times"].items()}
        for side, t in row["times"].items():
            assert 0 < t["low"] <= t["median"] <= t["high"]
            assert row["ratio"][side]["low"] <= row["ratio"][side]["median"] <= row["ratio"][side]["high"]
            assert row["per_second"][side] == pytest.approx(2 / medians[side])
            mine = [v["median"] for name, v in row["layouts"].items() if name.startswith(side)]
            assert medians[side] == min(mine)
        assert set(row["ratio"]["static"].values()) == {1.0}
        # The form as published writes a kernel per sample.
        assert 0 < row["peak"]["engine"] < row["peak"]["grouped"] > row["peak"]["static"] > 0
    assert {"static NCHW", "static NHWC"} <= set(rows[0]["layouts"]) and rows[0]["stem"] == "small"
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["models.json", "models.png"]


@pytest.mark.slow
def test_sweep_survives_a_cell_that_does_not_fit(tmp_path):
    report, picture = tmp_path / "sweep.json", tmp_path / "sweep.png"
    points = ("--batches", 10**9, 1, "--kernels", 2, "--resolutions", 32)
    args = ("--sweep", "--sizes", 32, "--passes", "inference", *points, *QUICK, "--json", report, "--plot", picture)
    done = run("models", *args, code=1)
    rows = json.loads(report.read_text())["rows"]
    assert [(r["axis"], r["value"]) for r in rows] == [
        ("batch", 10**9),
        ("batch", 1),
        ("kernels", 2),
        ("resolution", 32),
    ]
    assert rows[0]["failed"] == "does not fit in memory" and "does not fit in memory" in done.stdout
    assert all(row["ratio"]["engine"]["median"] > 0 for row in rows[1:])
    assert (rows[1]["batch"], rows[2]["options"], rows[3]["stem"]) == (1, {"num_kernels": 2}, "imagenet")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("models", "--networks", "resnet17"), "error: unknown network 'resnet17'; did you mean resnet18"),
        (("models", "--operators", "odcon"), "error: unknown operator 'odcon'; did you mean odconv"),
        (("models", "--json", "nowhere/out.json"), "error: nowhere/out.json: there is no folder nowhere"),
        (("models", "--plot", "out.pdf"), "error: --plot out.pdf: the name must end in .png"),
        (("models", "--sweep", "--networks", "fcn"), "error: --sweep takes one network of images"),
        (("heads", "--operator", "odcon"), "error: unknown operator 'odcon'; did you mean odconv"),
        (("heads", "--json", "nowhere/out.json"), "error: nowhere/out.json: there is no folder nowhere"),
        (("heads", "--json", "."), "error: . is a folder, not a file"),
        (("operators", "--json", "nowhere/out.json"), "error: nowhere/out.json: there is no folder nowhere"),
        (("operators", "--kernels", "1", "0"), "error: --kernels must be 1 or more, not 0"),
        (("ideas", "--batch", "0"), "error: --batch must be 1 or more, not 0"),
        (("gpu", "--json", "nowhere/out.json"), "error: nowhere/out.json: there is no folder nowhere"),
    ],
)
def test_bad_input_is_one_line(args, line, monkeypatch, capsys):
    module, *words = args
    monkeypatch.setattr(sys, "argv", [module, *words])
    monkeypatch.delitem(sys.modules, f"benchmarks.{module}", raising=False)  # or runpy warns
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{module}", run_name="__main__")
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert message.startswith(line) and message.count("\n") == 1


def test_bad_input_ends_the_process():
    message = run("models", "--json", "nowhere/out.json", code=2).stderr
    assert message == "error: nowhere/out.json: there is no folder nowhere\n"


def test_without_rich_the_extra_is_named(tmp_path):
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError('No module named rich', name='rich')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.operators", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (2, "error: rich is not installed: pip install 'dynconv-plugins[study]'\n")


def test_heads(tmp_path):
    report = tmp_path / "heads.json"
    done = run("heads", "--size", 32, *QUICK, "--train", "--json", report)
    rows = json.loads(report.read_text())["rows"]
    assert len(rows) == 16 and rows[0]["layer"] == "layer1.0.conv1" and rows[0]["input"] == [2, 64, 32, 32]
    for row in rows:
        assert set(row["times"]) == {"attention", "convolve", "static"}
        # Pooling, two products, an activation and a norm are the least that ODConv's formula takes.
        assert {"mean", "mm", "addmm"} & set(row["operations"]) and 4 <= len(row["operations"]) < 20
    assert "16 layers" in done.stdout


def test_a_ratio_and_its_quartiles_are_of_the_same_rounds():
    """A machine that slows down and recovers slows both."""
    static = timing.Timing((1.0, 5.0, 2.0, 4.0, 3.0))
    twice = timing.Timing(tuple(2 * t for t in static.rounds))
    assert set(twice.over(static).figures().values()) == {2.0}
    other = timing.Timing((3.0, 5.0, 4.0, 8.0, 6.0))
    assert other.over(static).figures() == {"median": 2.0, "low": 1.5, "high": 2.5}


@pytest.mark.parametrize("what", ["network", "convolution", "idea"])
def test_ratios_go_by_rounds(monkeypatch, what):
    static, slow = timing.Timing((1.0, 5.0, 2.0, 4.0, 3.0)), timing.Timing((2.0, 10.0, 4.0, 8.0, 6.0))
    same = {"median": 2.0, "low": 2.0, "high": 2.0}

    def compare(functions, *_):
        plain = [name for name in functions if "static" in name or name in ("NCHW", "NHWC")]
        return {name: static if name in plain else slow for name in functions}

    for module in (cell, operators, ideas):
        monkeypatch.setattr(module, "compare", compare)
        monkeypatch.setattr(module, "warm_up", lambda *_: None)
    if what == "network":
        row = cell.measure(cell.Cell("resnet18", 32, "odconv", False, 1, stem="small", seconds=0))
        assert row["ratio"]["engine"] == same
    elif what == "convolution":
        row = operators.measure(8, 4, 1, 2, False, 0)
        assert row["ratio"]["choice"] == same and row["choice_over_grouped"]["median"] == 1.0
    else:
        ratios = ideas.measure(8, 4, 2, 0)[2]
        assert set(ratios.values()) == {2.0}


def test_a_process_of_its_own_reports_how_it_ended():
    assert isolated.call(math.sqrt, 4.0) == 2.0
    with pytest.raises(isolated.Failed, match="^ValueError: "):
        isolated.call(math.sqrt, -1.0)
    with pytest.raises(isolated.Failed, match="^killed by SIGKILL, probably for its memory$"):
        isolated.call(signal.raise_signal, signal.SIGKILL)
    with pytest.raises(isolated.Failed, match="^exit code 3$"):
        isolated.call(os._exit, 3)


def test_peak_is_exact():
    kept = torch.zeros(500)

    def call():
        first = torch.ones(1000)
        second = first + 1
        del first
        third = torch.ones(3000)
        del second, third
        return kept + 1

    # `first` and `second` together, then `second` and `third`: the more counts.
    assert [memory.peak(call) for _ in range(2)] == [4 * 4000] * 2


def test_the_static_twin_is_timms_network():
    for name in ("resnet18", "mobilenetv2_050"):
        ours, theirs = networks.static(name).state_dict(), timm.create_model(name).state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_timms_condconv_computes_the_same():
    torch.manual_seed(0)
    model = networks.dynamic("mobilenetv2_050", "condconv", num_kernels=2).eval()
    twin = networks.timm_condconv(copy.deepcopy(model)).eval()
    theirs = [m for m in twin.modules() if isinstance(m, timm.layers.CondConv2d)]
    assert len(theirs) == len(dc.operators_in(model)) and {m.num_experts for m in theirs} == {2}
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), model(x), rtol=1e-3, atol=1e-3)
