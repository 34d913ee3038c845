"""The GPU benchmark without a GPU: its checks, and that it shows no speed-up beside one that failed."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console

from benchmarks import gpu, gpu_checks, gpu_timing
from benchmarks.gpu import main, time_table, verdict
from benchmarks.gpu_checks import SMALL, Check, Shape, check
from benchmarks.gpu_timing import KERNELS, LAYERS, QUICK, WAYS, Row, measured
from dynconv_plugins.errors import UserError

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


def printed(results, rows) -> tuple[bool, str]:
    out = io.StringIO()
    console = Console(file=out, width=240)
    sound = verdict(results, console)
    console.print(time_table(rows, sound))
    return sound, out.getvalue()


class Event:
    """A device that takes a millisecond for everything."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return 1.0


@pytest.fixture
def cuda(monkeypatch):
    """As much of a CUDA device as timing asks for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a device")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)


class OutOfResources(Exception):
    """Triton's own derives from nothing else either."""


def crash(*_args, **_options):
    raise OutOfResources("shared memory\nand a second line")


def test_ratios_to_static_beside_checks_that_passed():
    sound, text = printed([GOOD, GOOD], [ROW])
    assert sound
    assert "PASS" in text and "FAIL" not in text
    assert "2.50 ms (2.40-2.60) = 1.25x" in text and "9.00 ms (8.90-9.10) = 4.50x" in text
    assert "all 2 checks passed" in text


@pytest.mark.parametrize("failed", [WRONG, NAN, RAISED], ids=["wrong", "nan", "raised"])
def test_no_speed_up_beside_a_failed_check(failed):
    sound, text = printed([GOOD, failed], [ROW])
    assert not sound
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


@pytest.mark.parametrize("quick", [False, True])
def test_all_that_is_timed_is_checked_as_it_is_timed(monkeypatch, quick):
    monkeypatch.setattr(gpu_checks, "compare", lambda *_: {})
    done = [(c.shape, c.kernels, c.dtype, c.layout) for c in gpu_checks.checks("cuda", quick, False, 256)]
    for channels, size in QUICK if quick else LAYERS:
        for kernels in KERNELS:
            assert (f"{channels} @ {size}, batch 256", kernels, "bf16", "channels last") in done
    assert len(done) == len(set(done))


def test_a_large_batch_is_compared_by_parts_in_either_order_of_memory(monkeypatch):
    """Of the reference; the kernels get all of it, in the order of memory that the check names."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    seen = []
    convolve = gpu_checks.dc.dynamic_conv
    monkeypatch.setattr(gpu_checks.dc, "dynamic_conv", lambda x, *a, **o: seen.append(x) or convolve(x, *a, **o))
    done = check(Shape("some", 17, 16, 16, (2, 2), (1, 1)), 1, "fp32", True, "cpu")
    assert done.passed and set(done.errors) == {"y", "x", "weight", "input", "output"}
    assert [len(x) for x in seen] == [17, 16, 1]
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and not seen[0].is_contiguous()


def test_ways_that_raise_leave_the_others(cuda):
    calls = []

    def maker(backend, compiled):
        def late():
            calls.append(1)
            return crash() if len(calls) > 10 else None

        return {"fused": crash, "grouped": late}.get(backend, lambda: None)

    row = measured("a layer", "train", lambda: maker, 4)
    assert row.times == dict.fromkeys(("static", "static, compiled"), (0.2, 0.2, 0.2))
    assert row.failures == dict.fromkeys(("grouped", "fused", "fused, compiled"), "OutOfResources: shared memory")


def test_a_device_that_has_crashed_leaves_what_was_measured(cuda, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "checks", lambda *_: iter([GOOD]))
    monkeypatch.setattr(gpu_timing, "_layer", crash)
    monkeypatch.setattr(gpu_timing, "_network", lambda *_: lambda *_: lambda: None)
    assert main(["--quick", "--json", str(tmp_path / "gpu.json")]) == 0
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert len(rows) == 2 * len(KERNELS) * len(QUICK) + 2
    assert rows[0]["failures"] == dict.fromkeys(WAYS, "OutOfResources: shared memory") and rows[0]["times"] == {}
    assert set(rows[-1]["times"]) == set(WAYS)
    assert "OutOfResources: shared" in capsys.readouterr().out


def test_after_a_failed_check_the_kernels_are_not_timed(cuda, monkeypatch, capsys, tmp_path):
    """And the checks are printed and written before anything is."""
    told = []

    def layer(*_):
        told.append((capsys.readouterr().out, json.loads((tmp_path / "gpu.json").read_text())))
        return lambda backend, _: crash if backend == "fused" else lambda: None

    monkeypatch.setattr(gpu, "checks", lambda *_: iter([GOOD, RAISED]))
    monkeypatch.setattr(gpu_timing, "_layer", layer)
    monkeypatch.setattr(gpu_timing, "_network", layer)
    assert main(["--quick", "--json", str(tmp_path / "gpu.json")]) == 1
    text, page = told[0]
    assert "misaligned" in text and "FAILED: 1 of 2 checks; the fused kernels are not timed" in text
    assert [c["passed"] for c in page["checks"]] == [True, False] and page["rows"] == []
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert rows and all(set(row["times"]) == {"static", "grouped", "static, compiled"} for row in rows)
    assert not any(row["failures"] for row in rows)
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "no CUDA device here; --interpret checks"),
        (["--batch", "0"], "--batch must be 1 or more, not 0"),
        (["--json", "nowhere/gpu.json"], "nowhere/gpu.json: there is no folder nowhere"),
    ],
)
def test_bad_input(monkeypatch, words, line):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"^{line}"):
        main(words)
