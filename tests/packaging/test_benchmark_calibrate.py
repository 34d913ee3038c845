"""The fit of the cost model: its command runs, what it writes is what the engine then uses, and its fit is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("rich", reason="rich comes with the study extra")

from benchmarks import calibrate, cost_fit
from dynconv_plugins.backends import BACKENDS, choose_backend, costs, name_of
from dynconv_plugins.errors import UserError
from dynconv_plugins.problem import Problem

ROOT = Path(__file__).resolve().parents[2]
SHOW = "import json; from dynconv_plugins.backends import costs; print(json.dumps(costs.constants()))"


def run(*args: object, code: int = 0, **env: object) -> subprocess.CompletedProcess:
    """Runs Python with `args`, which must end with `code`."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("DYNCONV_COSTS", "DYNCONV_BACKEND")}
    env = inherited | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in env.items()}
    command = [sys.executable, *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == code, done.stderr[-2000:]
    return done


def problems(train: bool) -> list[Problem]:
    """What the command would time."""
    found = []
    for shape in calibrate.SHAPES:
        for kernels, batch in ((1, 1), (1, 8), (4, 2), (8, 16)):
            with torch.device("meta"):
                x, weight, attention = calibrate.tensors(shape, kernels, batch)
            with torch.set_grad_enabled(train):
                args = (x.requires_grad_(train), weight, attention, shape.stride, shape.kernel // 2, 1, shape.groups)
                found.append(Problem.of(*args))
    return [Problem(**vars(problem) | {"device": "cpu"}) for problem in found]


def test_the_command(tmp_path):
    report, written = tmp_path / "times.json", tmp_path / "costs.json"
    sizes = ("--quick", "--seconds", 0, "--batch", 2, "--kernels", 2)
    done = run("-m", "benchmarks.calibrate", *sizes, "--json", report, "--write", written)
    page = json.loads(report.read_text())
    assert len(page["problems"]) == len(calibrate.QUICK) * 2
    assert 0 < sum(row["held_out"] for row in page["problems"]) < len(page["problems"]) / 2
    for row in page["problems"]:
        assert min(row["times"].values()) > 0 and len(row["times"]) > 1
        assert {row["now"], row["fitted"], row["fastest"]} <= set(row["times"]) <= set(BACKENDS)
        assert row["times"][row["fastest"]] == min(row["times"].values())
    for line in page["summary"]:
        rows = [
            row
            for row in page["problems"]
            if row["held_out"] == (line["shapes"] == "held out") and row["train"] == (line["pass"] == "train")
        ]
        ratios = [row["times"][row[line["constants"]]] / min(row["times"].values()) for row in rows]
        assert line["problems"] == len(rows) and line["worst"] == pytest.approx(max(ratios))
        assert 1 <= line["mean"] <= line["worst"] * (1 + 1e-12)  # of one problem the two are rounded apart
    assert len(page["summary"]) == 8
    for title in ("constants of the cost model", "choices that would change", "over the fastest"):
        assert title in done.stdout

    constants = json.loads(written.read_text())
    assert constants == {name: value for name, value in page["fitted"].items() if name != "CACHE"}
    assert page["now"] == json.loads(run("-c", SHOW).stdout) != page["fitted"]
    used = json.loads(run("-c", SHOW, DYNCONV_COSTS=written).stdout)
    assert used == page["fitted"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["costs.json", "times.json"]


def test_the_fit_finds_the_constants_that_made_the_times(monkeypatch):
    monkeypatch.setattr(cost_fit, "KEEP", 1e-5)
    before = costs.constants()
    changes = {
        "MULTIPLY_ADD": 3.0,
        "WEIGHT": 0.3,
        "MIXED_WEIGHT": 20.0,
        "VALUE": 2.0,
        "TRAIN.work": 0.7,
        "TRAIN.value": 1.5,
    }
    truth = before | {name: before[name] * factor for name, factor in changes.items()}
    rows = []
    for train in (False, True):
        for problem in problems(train):
            able = {name: b for name, b in BACKENDS.items() if b.supports(problem) is None and b.cost(problem) < 1e9}
            with cost_fit.using(truth):
                # What all have in common must not matter.
                rows.append(cost_fit.Measured(problem, {name: b.cost(problem) + 2e-5 for name, b in able.items()}))
    fitted = cost_fit.fit(rows)
    # Without a C compiler nothing tells what mixing in cache takes, so that stays.
    told = changes if any("native" in row.times for row in rows) else changes.keys() - {"MIXED_WEIGHT"}
    for name in changes:
        assert fitted[name] == pytest.approx(truth[name] if name in told else before[name], rel=0.1), name
    assert fitted["CACHE"] == before["CACHE"]
    now, then = (cost_fit.losses(rows, values) for values in (before, fitted))
    assert cost_fit.mean(now) > 1.02 and cost_fit.mean(then) < 1.005
    assert costs.constants() == before


def test_other_constants_hold_within_the_block_only():
    problem = problems(False)[0]
    before = name_of(choose_backend(problem))
    # All that this backend does costs next to nothing.
    other = "mixture" if before != "mixture" else "grouped"
    dear = {name: value * 1e9 for name, value in costs.constants().items() if name in ("MIXED_WEIGHT", "WEIGHT")}
    dear["CACHED_WEIGHT"] = dear["WEIGHT"]
    with pytest.raises(KeyError), cost_fit.using(dear):
        assert name_of(choose_backend(problem)) == other == "mixture"
        raise KeyError
    assert name_of(choose_backend(problem)) == before


def test_what_is_far_from_the_best_is_timed_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(calibrate, "SKIP", 1)
    row = calibrate.measure(calibrate.QUICK[0], 2, 2, False, 0)
    [best] = row.times
    assert best == name_of(choose_backend(row.problem)) == row.fastest
    other = "gemm" if best != "gemm" else "grouped"
    assert set(calibrate.measure(calibrate.QUICK[0], 2, 2, False, 0, other).times) == {best, other}


def test_bounded_least_squares():
    torch.manual_seed(0)
    a, b = torch.randn(30, 8, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    least = torch.full((8,), 0.05, dtype=torch.float64)
    x = cost_fit.bounded_least_squares(a, b, least)
    gradient = a.T @ (a @ x - b)
    bound = x == least
    # The conditions of the minimum: no slope where there is room, and none that leads away from a bound.
    assert 0 < bound.sum() < 8 and (x >= least).all()
    assert gradient[~bound].abs().max() < 1e-6 and gradient[bound].min() > 0


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "No such file or directory; unset it, or write one with python -m benchmarks.calibrate --write FILE"),
        ("{", "not JSON; unset it"),
        ("[1]", "not constants by name; unset it"),
        ('{"VALEU": 1}', "unknown constant 'VALEU'; did you mean VALUE?"),
        ('{"TRAIN": 1}', "unknown constant 'TRAIN'"),
        ('{"VALUE": 0}', "VALUE must be positive, not 0; unset it"),
        ('{"TRAIN.work": NaN}', "TRAIN.work must be positive, not NaN"),
        ('{"CALL": "fast"}', 'CALL must be positive, not "fast"'),
    ],
)
def test_a_bad_file_of_constants(tmp_path, content, line):
    path = tmp_path / "costs.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as caught:
        costs.read(str(path))
    message = str(caught.value)
    assert message.startswith(f"DYNCONV_COSTS={path}: {line}") and "\n" not in message


def test_a_bad_file_is_said_by_the_first_choice_in_one_line(tmp_path):
    call = "from dynconv_plugins import errors, ODConv2d as conv, explain_backends as explain;"
    run("-c", f"{call} conv(8, 8, 3)", DYNCONV_COSTS=tmp_path / "none")
    call += "errors.run_cli(lambda: explain(conv(8, 8, 3), (2, 8, 5, 5)))"
    done = run("-c", call, code=2, DYNCONV_COSTS=tmp_path / "none")
    assert done.stderr.startswith(f"error: DYNCONV_COSTS={tmp_path / 'none'}: No such file")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "forced", "line"),
    [
        (("--batch", "0"), "", "--batch must be 1 or more, not 0"),
        (("--seconds", "nan"), "", "--seconds nan must be 0 or more"),
        (("--write", "nowhere/out.json"), "", "nowhere/out.json: there is no folder nowhere"),
        (("--json", "."), "", ". is a folder, not a file"),
        ((), "grouped", "DYNCONV_BACKEND is set, so nothing is chosen: unset it"),
    ],
)
def test_bad_input(args, forced, line, monkeypatch):
    monkeypatch.setenv("DYNCONV_BACKEND", forced)
    with pytest.raises(UserError) as caught:
        calibrate.arguments(args)
    assert str(caught.value) == line


def test_bad_input_is_one_line():
    done = run("-m", "benchmarks.calibrate", "--kernels", 0, code=2)
    assert done.stderr == "error: --kernels must be 1 or more, not 0\n"
