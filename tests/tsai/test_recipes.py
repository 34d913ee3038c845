"""Recipes: the held-out part, what looks at it, the average over the weights, and single folds."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelStepException
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from torch.nn.functional import cross_entropy
from tsai.learner import ts_learner

import tsai_models.train as training
from dynconv_plugins.errors import UserError
from tsai_models import Net1_CNN, ODConvFCN
from tsai_models.archs import build
from tsai_models.data import Series, hold_out, load, with_differences
from tsai_models.recipes import RECIPES, Recipe

CPU = torch.device("cpu")


@pytest.fixture
def learner(make_dls):
    def make(arch=Net1_CNN, **kwargs):
        set_seed(0)
        learn = ts_learner(make_dls(), arch, metrics=accuracy, **kwargs)
        learn.model_dir = learn.path
        return learn

    return make


def read(out):
    with open(out / "history.csv", newline="") as f, np.load(out / "predictions.npz") as arrays:
        return json.loads((out / "results.json").read_text()), list(csv.DictReader(f)), dict(arrays)


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
    assert results["rows"][0]["kept_epoch"] == 4 + int(np.argmin(main))
    # The dynamic network starts out as the twin's best epoch, and not as its last.
    assert results["config"]["recipe"]["best"]


def test_losses_that_are_no_numbers_are_never_kept(learner):
    recipe = RECIPES["study"]
    assert recipe.kept([float("nan"), 2.0, float("nan"), 1.0, 1.0]) == 4
    assert Recipe().kept([float("nan"), 2.0, 3.0]) == 3
    learn = learner()
    with torch.no_grad():
        next(learn.model.parameters()).fill_(float("nan"))
    with learn.no_bar(), learn.no_logging(), pytest.raises(UserError, match="lower --lr"):
        recipe.fit(learn, 2)


class Watch(Callback):
    """The weights after each step."""

    order = 90

    def after_step(self):
        values = {k: v.detach().clone() for k, v in self.learn.model.state_dict().items()}
        self.learn.seen = [*getattr(self.learn, "seen", []), values]


def test_the_average_is_validated_and_kept(learner):
    learn = learner(ODConvFCN, cbs=Watch())
    with learn.no_bar(), learn.no_logging():
        Recipe(epochs=2, lr=1e-2, ema=0.5).fit(learn)
        validated, again = learn.recorder.values[-1][1], learn.validate()[0]
    assert validated == pytest.approx(again, abs=1e-6)
    kept = learn.model.state_dict()
    ours = [k for k, v in kept.items() if v.is_floating_point() and not k.endswith("temperature")]
    weights = [min(0.5, (1 + n) / (10 + n)) for n in range(len(learn.seen))]
    assert len(weights) == 2 * len(learn.dls.train) and np.prod(weights) < 1e-3
    for k in ours:
        average = learn.seen[0][k]  # nearly: a thousandth of it are the initial weights, seen nowhere here
        for decay, step in zip(weights[1:], learn.seen[1:], strict=True):
            average = decay * average + (1 - decay) * step[k]
        torch.testing.assert_close(kept[k], average, atol=1e-3, rtol=1e-3)
    last = learn.seen[-1]
    assert any(not torch.allclose(kept[k], last[k], atol=1e-4) for k in ours)
    temperature = next(k for k in kept if k.endswith("temperature"))
    assert torch.equal(kept[temperature], last[temperature])


def test_training_goes_on_from_the_weights_and_not_from_the_average(learner):
    """Validating an average between the epochs changes nothing of the training."""
    seen = []
    for ema in (0.0, 0.9):
        learn = learner(cbs=Watch())
        with learn.no_bar(), learn.no_logging():
            Recipe(epochs=3, ema=ema).fit(learn)
        seen.append(learn.seen[-1])
    assert all(torch.equal(v, seen[1][k]) for k, v in seen[0].items())


def test_augmentation_changes_training_series_alone(tmp_path, archive):
    series = load("Waves", archive, tmp_path)
    plain, strong = (training.loaders(series, series.official, 36, CPU, strength) for strength in (0.0, 1.0))
    assert torch.equal(next(iter(plain.valid))[0], next(iter(strong.valid))[0])
    order = lambda x: sorted(x.flatten(1).sum(1).tolist())  # noqa: E731
    batches = [order(next(iter(strong.train))[0]) for _ in range(8)]
    assert any(not np.allclose(b, order(next(iter(plain.train))[0]), atol=1e-3) for b in batches)


def test_strong_keeps_the_last_average(train, tmp_path):
    args = ("--recipe", "strong", "--epochs", "2", "--mixup", "0.2", "--augment", "0.5")
    assert train(*args, "--out", "run", arch="FCN")[0] == 0
    assert train(*args, "--ema", "0", "--out", "plain", arch="FCN")[0] == 0
    results, history, _ = read(tmp_path / "run")
    plain, plain_history, _ = read(tmp_path / "plain")
    # An average is all that the two differ in: they train alike, and then keep other weights.
    assert len(history) == 2
    for row, other in zip(history, plain_history, strict=True):
        assert row["train_loss"] == other["train_loss"] and row["valid_loss"] != other["valid_loss"]
    ours, theirs = (torch.load(tmp_path / d / "model.pth", weights_only=True) for d in ("run", "plain"))
    assert not any(torch.equal(v, theirs[k]) for k, v in ours.items() if k.endswith("weight"))
    assert results["rows"][0]["loss"] != plain["rows"][0]["loss"]
    # A smoothed loss is the history's; the table has the cross-entropy, which is comparable between recipes.
    assert float(history[-1]["valid_loss"]) != pytest.approx(results["rows"][0]["loss"], abs=1e-3)
    assert results["rows"][0]["kept_epoch"] == 2


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
        (["--differences", "-1"], "negative"),
    ],
)
def test_refused_in_one_line(train, tmp_path, args, names):
    code, out, err = train("--out", "run", *args)
    assert code == 2 and out == ""
    assert names in err and len(err.splitlines()) == 1 and err.startswith("error: ")
    assert not (tmp_path / "run").exists()
