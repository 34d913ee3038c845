"""The GPU benchmark without a GPU: its checks, and that it shows no speed-up beside one that failed."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console

from benchmarks.gpu import main, report
from benchmarks.gpu_checks import SMALL, Check, Shape, check
from benchmarks.gpu_timing import WAYS, Row

pytest.importorskip("triton")

GOOD = Check("64 @ 56", 4, "bf16", "channels last", {"y": 1e-3, "x": 2e-3})
WRONG = Check("64 @ 56", 4, "bf16", "channels last", {"y": 1e-3, "x": 0.5})
NAN = Check("64 @ 56", 4, "bf16", "channels last", {"y": float("nan"), "x": 0.5})
RAISED = Check("64 @ 56", 4, "bf16", "channels last", {}, "RuntimeError: misaligned address")
MILLISECONDS = {"static": 2.0, "grouped": 9.0, "fused": 2.5, "static, compiled": 1.9, "fused, compiled": 2.4}
ROW = Row(
    "64 @ 56, K=4",
    "train",
    {way: (t, t - 0.1, t + 0.1) for way, t in MILLISECONDS.items()},
    dict.fromkeys(WAYS, 100.0),
    {},
)


def printed(results, rows) -> tuple[int, str]:
    out = io.StringIO()
    return report(results, rows, Console(file=out, width=240)), out.getvalue()


def test_ratios_to_static_beside_checks_that_passed():
    code, text = printed([GOOD, GOOD], [ROW])
    assert code == 0
    assert "PASS" in text and "FAIL" not in text
    assert "2.50 ms (2.40-2.60) = 1.25x" in text and "9.00 ms (8.90-9.10) = 4.50x" in text
    assert "all 2 checks passed" in text


@pytest.mark.parametrize("failed", [WRONG, NAN, RAISED], ids=["wrong", "nan", "raised"])
def test_no_speed_up_beside_a_failed_check(failed):
    code, text = printed([GOOD, failed], [ROW])
    assert code == 1
    assert "2.50" not in text and "1.25x" not in text and "1.20x" not in text
    row = next(line for line in text.splitlines() if "K=4" in line)
    assert row.count("FAILED") == 2
    assert "4.50x" in row  # what was not checked is none of the kernels' business
    assert "FAILED: 1 of 2 checks" in text


def test_the_worst_error_of_a_check_is_one_that_is_no_number():
    assert (WRONG.worst, NAN.worst) == ("x", "y")


def test_a_way_that_could_not_be_timed_says_why():
    row = Row(
        ROW.what, ROW.run, {"static": (2.0, 1.9, 2.1)}, {"static": 100.0}, {"grouped": "OutOfMemoryError: 80 GiB"}
    )
    assert "OutOfMemoryError: 80 GiB" in printed([GOOD], [row])[1]


def test_interpreted_checks_pass(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # which the command sets, and this takes back
    assert main(["--interpret", "--quick", "--json", str(tmp_path / "gpu.json")]) == 0
    text = capsys.readouterr().out
    assert "all 8 checks passed" in text and "medians" not in text
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert all(c["passed"] and set(c["errors"]) >= {"y", "x", "weight", "output"} for c in written["checks"])
    assert len(written["checks"]) == 8 and written["rows"] == []


def test_a_kernel_that_refuses_or_is_wrong_is_a_failed_check(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    refused = check(Shape("depthwise", 2, 16, 16, (4, 4), (3, 3), groups=16), 1, "fp32", False, "cpu")
    assert not refused.passed and "1 channels per group are too few" in refused.problem
    # The inputs' rounding to bf16 is no excuse in fp32.
    coarse = check(SMALL[1], 1, "bf16", False, "cpu")
    assert coarse.passed
    assert not Check(coarse.shape, 1, "fp32", coarse.layout, coarse.errors).passed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_one_line(capsys):
    assert main([]) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and len(streams.err.splitlines()) == 1
    assert streams.err.startswith("error: no CUDA device here; --interpret")
