"""``python -m tsai_models train``: tables, files, continuing, and bad input."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from written import read

import tsai_models.train as training
from dynconv_plugins import datasets
from dynconv_plugins.errors import UserError
from dynconv_plugins.locking import sole
from dynconv_plugins.study.hosts.series import progress
from tsai_models import ARCHS
from tsai_models.archs import build
from tsai_models.data import Series, load, splits

ROOT = Path(__file__).parents[2]
REAL = datasets.find().get("ucr")


def test_folds_table_and_files(train, tmp_path):
    code, out, err = train("--folds", "3", "--epochs", "2", "--out", "run", arch="Net2_DCNN")
    assert code == 0 and "3 stratified folds" in out and "mean" in out and "sd" in out
    assert "2 epochs of the static twin, then 2" in err
    results, history, _ = read(tmp_path / "run")
    accuracies = [row["accuracy"] for row in results["rows"]]
    assert [row["run"] for row in results["rows"]] == [0, 1, 2]
    assert all(row["seconds"] > 0 and np.isfinite(row["loss"]) for row in results["rows"])
    assert results["mean"] == pytest.approx(np.mean(accuracies)) and results["sd"] == pytest.approx(
        np.std(accuracies, ddof=1)
    )
    assert f"{results['mean']:.3f}" in out
    assert [(h["run"], h["epoch"], h["stage"]) for h in history[:4]] == [
        ("0", "1", "twin"),
        ("0", "2", "twin"),
        ("0", "3", "main"),
        ("0", "4", "main"),
    ]
    assert float(history[3]["accuracy"]) == pytest.approx(accuracies[0])
    assert not list((tmp_path / "run").glob("*.tmp"))
    state = torch.load(tmp_path / "run" / "model.pth", weights_only=True)
    build(ARCHS["Net2_DCNN"].cls, 1, 3, 40).load_state_dict(state)
    assert state["backbone.conv1.attention.temperature"] < 30


def test_progress_can_be_read_while_it_trains(train, tmp_path, monkeypatch):
    seen = []

    def look(bar):
        seen.append(progress(tmp_path, {"recipe": "one-cycle", "options": {"epochs": 3}})[:2])

    monkeypatch.setattr(training.EpochBar, "after_epoch", look)
    assert train("--epochs", "3", "--out", "run")[0] == 0
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert not (tmp_path / "run" / "progress.csv").exists()


def test_learns_the_official_split_over_seeds(train, tmp_path):
    code, out, _ = train("--seeds", "2", "--epochs", "12", "--lr", "5e-3", "--out", "run")
    results, _, _ = read(tmp_path / "run")
    assert code == 0 and "official split" in out
    assert len(results["rows"]) == 2 and results["mean"] > 0.8
    assert results["rows"][0]["loss"] != results["rows"][1]["loss"]


def test_continues_with_finished_folds_kept(train, tmp_path, monkeypatch):
    """Interrupted in the second fold: the first is kept, and the end is the same as without the interruption."""
    once, calls = training.train_once, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return once(*args)

    args = ("--folds", "2", "--epochs", "1")
    monkeypatch.setattr(training, "train_once", interrupted)
    code, out, err = train(*args, "--out", "run")
    assert code == 130 and "1 of 2 folds are kept" in err and "Traceback" not in err and "mean" not in out
    first = read(tmp_path / "run")[0]["rows"]
    monkeypatch.setattr(training, "train_once", once)
    code, out, err = train(*args, "--out", "run")
    assert code == 0 and "1 of 2 folds were finished before" in err
    train(*args, "--out", "whole")
    continued, history, _ = read(tmp_path / "run")
    whole, whole_history, _ = read(tmp_path / "whole")
    assert continued["rows"][0] == first[0]
    assert [r["loss"] for r in continued["rows"]] == [r["loss"] for r in whole["rows"]]
    assert history == whole_history
    ours, theirs = (torch.load(tmp_path / d / "model.pth", weights_only=True) for d in ("run", "whole"))
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())


def test_other_configuration_is_refused_and_overwritten(train, tmp_path):
    assert train("--epochs", "1", "--out", "run")[0] == 0
    code, _, err = train("--epochs", "2", "--out", "run")
    assert code == 2 and "epochs" in err and "--overwrite" in err and len(err.splitlines()) == 1
    assert train("--epochs", "2", "--out", "run", "--overwrite")[0] == 0
    assert len(read(tmp_path / "run")[1]) == 2
    (tmp_path / "run" / "results.json").write_text('{"config":')
    code, _, err = train("--epochs", "2", "--out", "run")
    assert code == 2 and "damaged" in err


def test_two_commands_do_not_share_a_folder(train, tmp_path, monkeypatch):
    """They would load each other's best weights."""
    monkeypatch.setattr("dynconv_plugins.locking.PATIENCE", 0.1)
    (tmp_path / "run").mkdir()
    with sole(tmp_path / "run", "--out"):
        code, _, err = train("--epochs", "1", "--out", "run", arch="FCN")
    assert code == 2 and "another run writes to run: wait for its end, or choose another --out" in err
    assert not list((tmp_path / "run").iterdir())


def test_static_twin_gets_the_same_epochs_and_size(train, tmp_path):
    assert train("--epochs", "2", "--pretrain-epochs", "1", "--static", "--out", "run", arch="Net1_DCNN")[0] == 0
    results, history, _ = read(tmp_path / "run")
    assert len(history) == 3
    assert results["config"]["parameters"] == sum(p.numel() for p in build(ARCHS["Net1_CNN"].cls, 1, 3).parameters())


@pytest.mark.parametrize("arch", ["Net1_DCNN", "FCN"])
def test_hard_attention_logs_its_budget_and_takes_any_argument(train, tmp_path, arch):
    options = ("--operator", "hard", "--operator-arg", "budget=0.25", "--operator-arg", "ramp=0")
    code, _, _ = train("--epochs", "2", *options, "--out", "run", arch=arch)
    assert code == 0
    results, history, _ = read(tmp_path / "run")
    assert results["config"]["operator_args"] == {"budget": 0.25, "ramp": 0}
    main = [row for row in history if row["stage"] == "main"]
    assert len(main) == 2 and all(0 <= float(row["mask_rate"]) <= 1 for row in main)
    assert all(float(row["budget_loss"]) >= 0 for row in main) and float(main[0]["budget_loss"]) > 1
    assert all(row["mask_rate"] == "" for row in history if row["stage"] == "twin")
    train("--epochs", "1", "--out", "other")
    assert "mask_rate" not in read(tmp_path / "other")[1][0]


def test_operator_on_any_tsai_architecture(train, tmp_path):
    code, out, _ = train("--epochs", "1", "--operator", "odconv", "--where", "all", "--num-kernels", "2", arch="FCN")
    assert code == 0 and "FCN (odconv)" in out
    state = torch.load(tmp_path / "runs/tsai/FCN-odconv-Waves-official/model.pth", weights_only=True)
    assert state["convblock1.0.weight"].shape[0] == 2 * 128


def test_built_in_diatoms_need_no_data(cli, tmp_path):
    code, out, _ = cli("train", "--arch", "Net1_CNN", "--dataset", "Diatoms", "--epochs", "1", "--out", "run")
    assert code == 0 and "Diatoms" in out
    assert read(tmp_path / "run")[0]["config"]["classes"] == 5


def test_folds_are_stratified_and_fixed(archive, tmp_path):
    series = load("Waves", archive, tmp_path)
    pairs = splits(series, 5, 1)
    assert pairs == splits(series, 5, 1)
    assert sorted(i for _, test in pairs for i in test) == list(range(60))
    for chosen, test in pairs:
        assert not set(chosen) & set(test) and len(chosen) + len(test) == 60
        assert set(np.unique(series.y[test], return_counts=True)[1]) == {4}
    with pytest.raises(UserError, match="lower --folds"):
        splits(series, 21, 1)


@pytest.mark.parametrize("test_size", [12, 78, 98, 200, 300, 1100])
def test_every_test_series_is_evaluated(test_size):
    """tsai's own batches of 64 leave out the end of a test set of 78, a fold of Adiac."""
    n = 20 + test_size
    series = Series(np.zeros((n, 1, 8), np.float32), np.array(["a", "b"] * (n // 2)), ([], []))
    dls = training.loaders(series, (list(range(20)), list(range(20, n))), 32, torch.device("cpu"))
    assert sum(len(y) for _, y in dls.valid) == test_size
    assert all(len(y) for _, y in dls.valid)


def test_arrays_that_tsai_downloaded(archive, tmp_path):
    folder, series = tmp_path / "npy" / "UCR" / "Waves", load("Waves", archive, tmp_path)
    folder.mkdir(parents=True)
    for name, part in (("train", series.official[0]), ("valid", series.official[1])):
        np.save(folder / f"X_{name}.npy", series.X[part])
        np.save(folder / f"y_{name}.npy", series.y[part])
    again = load("Waves", tmp_path / "npy", tmp_path)
    assert np.array_equal(again.X, series.X) and list(again.y) == list(series.y) and again.official == series.official
    np.save(folder / "X_train.npy", np.full_like(series.X[series.official[0]], np.nan))
    with pytest.raises(UserError, match="missing values"):
        load("Waves", tmp_path / "npy", tmp_path)


@pytest.mark.parametrize(
    "args, names",
    [
        (["--arch", "Net2_DCN"], "Net2_DCNN"),
        (["--dataset", "Wave"], "Waves"),
        (["--recipe", "one-cycl"], "one-cycle"),
        (["--arch", "FCN", "--operator", "odcon"], "odconv"),
        (["--arch", "FCN", "--operator", "odconv", "--where", "nowhere"], "nowhere"),
        (["--arch", "ODConvFCN", "--where", "nowhere"], "nowhere"),
        (["--arch", "FCN", "--static"], "--static"),
        (["--arch", "FCN", "--num-kernels", "4"], "--operator"),
        (["--arch", "ODConvFCN", "--static", "--num-kernels", "4"], "--operator"),
        (["--folds", "3", "--seeds", "2"], "--seeds"),
        (["--folds", "1"], "--folds"),
        (["--epochs", "0"], "--epochs"),
        (["--lr", "nan"], "--lr"),
        (["--pretrain-epochs", "3"], "Net*_DCNN"),
        (["--device", "warp"], "warp"),
        (["--device", "meta"], "meta"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "99999999999999999999"], "--seed"),
        (["--arch", "PatchTST"], "no logits"),
        (["--arch", "MultiInputNet"], "MultiInputNet cannot be built that way"),
        (["--arch", "ROCKET"], "ROCKET cannot be built that way"),
        (["--arch", "FCN", "--operator", "hard", "--operator-arg", "mesk=task"], "mask"),
        (["--arch", "FCN", "--operator", "hard", "--operator-arg", "mask=tusk"], "'task'"),
        (["--arch", "FCN", "--operator", "hard", "--operator-arg", "mask"], "NAME=VALUE"),
        (["--arch", "FCN", "--operator", "orconv", "--operator-arg", "rotations=8"], "rotations"),
        (["--arch", "FCN", "--operator", "globalsoft", "--num-kernels", "4"], "num_kernels"),
        (["--arch", "FCN", "--operator", "dyconv", "--num-kernels", "4", "--operator-arg", "num_kernels=2"], "again"),
        (["--arch", "Net1_DCNN", "--where", "all"], "where"),
        (["--arch", "FCN", "--operator-arg", "mask=task"], "--operator"),
        (["--data", "nowhere"], "nowhere"),
        (["--folds", "50"], "--folds"),
    ],
)
def test_bad_arguments_are_one_line(train, tmp_path, args, names):
    code, out, err = train("--out", "run", *args)
    assert code == 2 and out == ""
    assert names in err and len(err.splitlines()) == 1 and err.startswith("error: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage, names", [("ragged", "5"), ("nan", "NaN"), ("text", "not a number")])
def test_damaged_series_are_one_line(train, tmp_path, archive, damage, names):
    path = archive / "UCR" / "Waves" / "Waves_TRAIN.tsv"
    lines = path.read_text().splitlines()
    cells = lines[4].split("\t")
    cells = {"ragged": cells[:-3], "nan": [*cells[:-1], "NaN"], "text": [*cells[:-1], "abc"]}[damage]
    path.write_text("\n".join([*lines[:4], "\t".join(cells), *lines[5:]]) + "\n")
    code, _, err = train("--out", "run")
    assert code == 2 and names.lower() in err.lower() and len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_divergence_is_said(train, tmp_path):
    code, _, err = train("--epochs", "3", "--lr", "1e30", "--out", "run")
    assert code == 2 and "lower --lr" in err and not (tmp_path / "run" / "results.json").exists()


def test_list(cli):
    code, out, _ = cli("list")
    assert code == 0 and all(name in out for name in ARCHS)


def test_help_says_what_it_is_for(cli):
    code, out, _ = cli("--help")
    assert code == 0 and "Classifies time series of equal length" in " ".join(out.split())


def test_interrupt_from_the_terminal(archive, tmp_path):
    """A real process and a real signal, once a fold is done."""
    command = [sys.executable, "-m", "tsai_models", "train", "--arch", "Net1_CNN", "--dataset", "Waves"]
    command += ["--data", str(archive), "--out", str(tmp_path / "run"), "--folds", "20", "--epochs", "5"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "run" / "results.json").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "Traceback" not in err and "Warning" not in err
    assert err.strip().splitlines()[-1].startswith("interrupted: ")
    assert len(read(tmp_path / "run")[0]["rows"]) < 20


@pytest.mark.skipif(REAL is None, reason="DYNCONV_DATA has no UCR data")
def test_real_adiac(cli, tmp_path):
    code, _, _ = cli(
        "train", "--arch", "Net1_CNN", "--dataset", "Adiac", "--data", str(REAL), "--epochs", "1", "--out", "run"
    )
    config = read(tmp_path / "run")[0]["config"]
    assert code == 0 and (config["series"], config["classes"]) == (781, 37)
