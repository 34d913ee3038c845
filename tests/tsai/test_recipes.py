"""Recipes: the held-out part, what looks at it, and single folds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelStepException
from torch.nn.functional import cross_entropy
from tsai.learner import ts_learner
from written import read

import dynconv_plugins as dc
import tsai_models.train as training
from dynconv_plugins.errors import UserError
from tsai_models import Net1_CNN, Net1_DCNN, TemperatureCallback
from tsai_models.archs import build
from tsai_models.data import Series, hold_out, load, with_differences
from tsai_models.recipes import RECIPES, Recipe

CPU = torch.device("cpu")


def test_held_out_part_is_stratified_and_leaves_every_class():
    y = np.repeat(["a", "b", "c", "d"], [1, 4, 25, 30])
    series, train = Series(np.zeros((60, 1, 4)), y, ([], [])), list(range(60))
    ours, held = hold_out(series, train, 0.2)
    assert sorted(ours + held) == train and len(held) == 12
    assert [int((y[held] == c).sum()) for c in "abcd"] == [0, 1, 5, 6]
    assert hold_out(series, train, 0.2) == (ours, held)
    assert set(y[hold_out(series, train, 0.99)[0]]) == set("abcd")
    assert len(hold_out(series, train, 0.02)[1]) == 1
    with pytest.raises(UserError, match="raise --holdout"):
        hold_out(series, train, 0.001)
    with pytest.raises(UserError, match="raise --holdout"):
        hold_out(series, [0, 1, 7, 50], 0.9)


@pytest.mark.parametrize("options", [(), ("--folds", "3", "--fold", "1")])
def test_held_out_part_is_of_the_training_series_whatever_the_seed(train, monkeypatch, tmp_path, archive, options):
    seen, loaders = [], training.loaders

    def spy(series, parts, *rest):
        seen.append(parts)
        return loaders(series, parts, *rest)

    monkeypatch.setattr(training, "loaders", spy)
    for seed in "05":
        assert train("--epochs", "1", "--holdout", "0.25", "--seed", seed, "--out", f"run{seed}", *options)[0] == 0
    assert seen[0] == seen[1]
    ours, held, test = map(set, seen[0])
    assert len(held) == round(0.25 * (len(ours) + len(held))) and not (ours | held) & test
    everything = training.splits(load("Waves", archive, tmp_path), 3, 1)[1] if options else (range(36), range(36, 60))
    assert ours | held == set(everything[0]) and test == set(everything[1])
    history = read(tmp_path / "run0")[1]
    correct = float(history[0]["accuracy"]) * len(held)
    assert correct == pytest.approx(round(correct), abs=1e-4)


class Standstill(Callback):
    """No step changes anything, so the validation loss never falls."""

    def before_step(self):
        raise CancelStepException


def test_plateau_lowers_the_rate_and_patience_ends_the_training(learner, capsys):
    learn = learner(cbs=Standstill())
    recipe = replace(RECIPES["study"], lr=1e-5, plateau=1, patience=3)
    with learn.no_bar(), learn.no_logging():
        recipe.fit(learn, 20)
    assert len(learn.recorder.values) == 4  # the first is the best, then three without progress
    assert learn.opt.hypers[-1]["lr"] == pytest.approx(1e-6)  # lowered three times, and never further
    assert recipe.kept([float(v[1]) for v in learn.recorder.values]) == 1
    assert capsys.readouterr().out == ""
    assert not list(learn.path.glob("*.pth"))


def test_nothing_is_tracked_while_the_temperature_falls(make_dls):
    """The plateau would lower the rate of the dynamic network alone, because its temperature raised the loss."""

    def fitted(operator, epochs=8):
        schedule = TemperatureCallback(dc.LinearTemperature(epochs=3.5))
        learn = ts_learner(make_dls(), Net1_DCNN, operator=operator, cbs=[Standstill(), schedule])
        with learn.no_bar(), learn.no_logging():
            replace(RECIPES["study"], lr=1e-5, plateau=1, patience=2).fit(learn, epochs)
        return [float(row[1]) for row in learn.recorder.values], learn.opt.hypers[-1]["lr"]

    losses, rate = fitted("dyconv")  # no batch norm either
    assert len(losses) == 4 + 3 and rate == pytest.approx(1e-6)
    assert RECIPES["study"].kept([1.0, 1.0, 1.0, 1.0, 3.0, 2.0, 3.0], first=4) == 6
    assert len(fitted("orconv")[0]) == 3  # it has no temperature
    assert len(fitted("dyconv", epochs=2)[0]) == 2  # the last epoch counts in any case


def test_kept_epoch_is_the_best_of_the_validation_loss(train, tmp_path, archive):
    args = ("--recipe", "study", "--lr", "0.03", "--epochs", "12", "--holdout", "0.3", "--out", "run")
    code, _, err = train(*args, "--seed", "1")
    assert code == 0
    results, history, _ = read(tmp_path / "run")
    losses, row = [float(h["valid_loss"]) for h in history], results["rows"][0]
    assert row["kept_epoch"] == 1 + int(np.argmin(losses)) < row["epochs"] == len(history)
    assert f"epoch {row['kept_epoch']} of {row['epochs']} kept" in err
    series = load("Waves", archive, tmp_path)
    _, held = hold_out(series, series.official[0], 0.3)
    state = torch.load(tmp_path / "run" / "model.pth", weights_only=True)
    model = build(Net1_CNN, 1, 3, 40)
    model.load_state_dict(state)
    dls = training.loaders(series, (series.official[0], held), 12, CPU)
    x, y = next(iter(dls.valid))
    with torch.no_grad():
        logits = model.eval()(x.as_subclass(torch.Tensor))
        assert cross_entropy(logits, y.as_subclass(torch.Tensor)).item() == pytest.approx(min(losses), abs=1e-5)
    assert not (tmp_path / "run" / "best.pth").exists()


def test_twin_is_trained_by_the_same_recipe(train, tmp_path):
    code, _, _ = train("--recipe", "study", "--epochs", "3", "--out", "run", arch="Net1_DCNN")
    assert code == 0
    results, history, _ = read(tmp_path / "run")
    assert [h["stage"] for h in history] == ["twin"] * 3 + ["main"] * 3
    main = [float(h["valid_loss"]) for h in history[3:]]
    # Its temperature falls for a half of the three epochs: of the first two none is kept.
    assert results["rows"][0]["kept_epoch"] == 4 + 2 + int(np.argmin(main[2:]))
    # The dynamic network starts out as the twin's best epoch, and not as its last.
    assert results["config"]["recipe"]["best"]


def test_twin_learns_what_the_static_network_does(train, tmp_path):
    """From the same weights and the same batches in the same order: what differs later is the operator's doing."""
    losses = {}
    for name, words in {"static": ["--static"], "odconv": [], "localsoft": ["--operator", "localsoft"]}.items():
        code, _, _ = train("--recipe", "study", "--epochs", "2", "--out", name, *words, arch="Net1_DCNN")
        assert code == 0
        losses[name] = [h["train_loss"] for h in read(tmp_path / name)[1][:2]]
    assert losses["static"] == losses["odconv"] == losses["localsoft"]


def test_losses_that_are_no_numbers_are_never_kept(learner):
    recipe = RECIPES["study"]
    assert recipe.kept([float("nan"), 2.0, float("nan"), 1.0, 1.0]) == 4
    assert Recipe().kept([float("nan"), 2.0, 3.0]) == 3
    learn = learner()
    with torch.no_grad():
        next(learn.model.parameters()).fill_(float("nan"))
    with learn.no_bar(), learn.no_logging(), pytest.raises(UserError, match="lower --lr"):
        recipe.fit(learn, 2)


def test_augmentation_changes_training_series_alone(tmp_path, archive):
    series = load("Waves", archive, tmp_path)
    plain, strong = (training.loaders(series, series.official, 36, CPU, strength) for strength in (0.0, 1.0))
    assert torch.equal(next(iter(plain.valid))[0], next(iter(strong.valid))[0])
    order = lambda x: sorted(x.flatten(1).sum(1).tolist())  # noqa: E731
    batches = [order(next(iter(strong.train))[0]) for _ in range(8)]
    assert any(not np.allclose(b, order(next(iter(plain.train))[0]), atol=1e-3) for b in batches)


def test_differences_are_further_variables(train, tmp_path):
    X = np.random.default_rng(0).normal(3, 5, (4, 2, 30)).astype(np.float32)
    assert with_differences(X, 0) is X
    made = with_differences(X, 2)
    assert made.shape == (4, 6, 30) and made.dtype == np.float32
    np.testing.assert_allclose(made.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(made.std(-1), 1, atol=1e-5)
    steps = X[1, 1, 1:] - X[1, 1, :-1]
    assert np.corrcoef(made[1, 3, 1:], steps)[0, 1] > 0.9999
    assert np.corrcoef(made[1, 5, 2:], np.diff(steps))[0, 1] > 0.9999
    assert np.isfinite(with_differences(np.ones_like(X), 1)).all()
    assert train("--epochs", "1", "--differences", "1", "--out", "run", arch="FCN")[0] == 0
    assert read(tmp_path / "run")[0]["config"]["variables"] == 2
    state = torch.load(tmp_path / "run" / "model.pth", weights_only=True)
    assert state["convblock1.0.weight"].shape[1] == 2


@pytest.mark.parametrize("recipe", ["one-cycle", "study"])
def test_a_fold_alone_is_that_fold_of_all(train, tmp_path, recipe):
    args = ("--recipe", recipe, "--epochs", "2", "--folds", "3", "--seed", "7")
    assert train(*args, "--out", "all")[0] == 0
    code, out, err = train(*args, "--fold", "1", "--out", "one")
    assert code == 0 and "fold 1 of 3" in err
    whole, whole_history, arrays = read(tmp_path / "all")
    one, history, mine = read(tmp_path / "one")
    differs = {"seconds"}
    assert [{k: v for k, v in row.items() if k not in differs} for row in one["rows"]] == [
        {k: v for k, v in whole["rows"][1].items() if k not in differs}
    ]
    assert history == [h for h in whole_history if h["run"] == "1"]
    assert np.array_equal(mine["predicted"], arrays["predicted_1"])
    assert np.array_equal(mine["truth"], arrays["truth_1"])


def test_predictions_are_those_of_the_table(train, tmp_path):
    train("--epochs", "6", "--out", "run")
    results, _, arrays = read(tmp_path / "run")
    assert set(arrays) == {"truth", "predicted", "classes"} and list(arrays["classes"]) == ["0", "1", "2"]
    assert len(arrays["truth"]) == 24
    assert (arrays["truth"] == arrays["predicted"]).mean() == results["rows"][0]["accuracy"]
    # A second seed joins the first.
    train("--epochs", "6", "--seeds", "2", "--out", "run")
    results, _, arrays = read(tmp_path / "run")
    assert set(arrays) == {"truth_0", "predicted_0", "truth_1", "predicted_1", "classes"}
    for row in results["rows"]:
        hits = arrays[f"truth_{row['run']}"] == arrays[f"predicted_{row['run']}"]
        assert hits.mean() == row["accuracy"]
    (tmp_path / "run" / "predictions.npz").write_bytes(b"PK\x03\x04 nothing")
    code, _, err = train("--epochs", "6", "--seeds", "2", "--out", "run")
    assert code == 2 and "damaged" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "args, names",
    [
        (["--fold", "1"], "--folds"),
        (["--folds", "3", "--fold", "3"], "0 to 2"),
        (["--folds", "3", "--fold", "-1"], "0 to 2"),
        (["--holdout", "0.001"], "raise --holdout"),
        (["--holdout", "1"], "holdout"),
        (["--holdout", "-0.1"], "--holdout"),
        (["--holdout", "some"], "--holdout"),
        (["--recipe", "study", "--holdout", "0"], "--holdout above 0"),
        (["--label-smoothing", "1"], "smoothing"),
        (["--ema", "1"], "ema"),
        (["--schedule", "one_cycle"], "did you mean one-cycle"),
        (["--schedule", "plateau"], "--holdout above 0"),
        (["--differences", "-1"], "negative"),
    ],
)
def test_refused_in_one_line(train, tmp_path, args, names):
    code, out, err = train("--out", "run", *args)
    assert code == 2 and out == ""
    assert names in err and len(err.splitlines()) == 1 and err.startswith("error: ")
    assert not (tmp_path / "run").exists()
