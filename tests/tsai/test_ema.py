"""The average over the weights that a recipe may keep."""

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from tsai.data.core import TSTensor
from written import read

import dynconv_plugins as dc
from tsai_models import ODConvFCN
from tsai_models.recipes import Recipe


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
    ours = [k for k, _ in learn.model.named_parameters()]
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


def test_the_average_gets_statistics_of_its_own(learner):
    """Those of all training series under the averaged weights; training goes on with its own."""
    learn = learner(ODConvFCN)
    with learn.no_bar(), learn.no_logging():
        Recipe(epochs=2, lr=1e-2, ema=0.9).fit(learn)
    statistics = {k: v.clone() for k, v in learn.model.named_buffers() if "running" in k}
    everything, _ = learn.dls.train.dataset[:]
    x = learn.dls.train.after_batch((everything,))[0].as_subclass(torch.Tensor)
    seen = {}
    first = next(m for m in learn.model.modules() if isinstance(m, torch.nn.BatchNorm1d) and m.num_features == 128)
    first.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    with torch.no_grad():
        learn.model.eval()(x)
    torch.testing.assert_close(first.running_mean, seen["x"].mean((0, 2)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first.running_var, seen["x"].var((0, 2)), atol=1e-5, rtol=1e-4)
    with learn.no_bar(), learn.no_logging():
        learn.validate()
    assert all(torch.equal(v, statistics[k]) for k, v in learn.model.named_buffers() if "running" in k)


def test_many_series_are_taken_in_equal_batches_and_as_they_are(learner, monkeypatch):
    """A small last batch would count as much as the others; a random transform would be taken for the data."""
    from fastai.vision.augment import RandTransform

    class Loud(RandTransform):
        split_idx, order = 0, 90

        def encodes(self, x: TSTensor):
            return x * 100

    monkeypatch.setattr("tsai_models.ema.LARGEST", 10)
    learn = learner(ODConvFCN)
    count = len(learn.dls.train.dataset)
    assert count % 10
    sizes = []
    with learn.no_bar(), learn.no_logging():
        learn.dls.train.after_batch.add(Loud(p=1.0))
        real = dc.update_bn

        def watched(model, batches):
            taken = list(batches)
            sizes.extend(map(len, taken))
            real(model, taken)

        monkeypatch.setattr(dc, "update_bn", watched)
        Recipe(epochs=1, lr=1e-4, ema=0.9).fit(learn)
    assert sum(sizes) == count and max(sizes) - min(sizes) <= len(sizes) and max(sizes) <= 10
    first = next(m for m in learn.model.modules() if isinstance(m, torch.nn.BatchNorm1d) and m.num_features == 128)
    assert first.running_var.mean() < 10, "of the series, not of a hundred times as much"


def test_training_goes_on_from_the_weights_and_not_from_the_average(learner):
    """Validating an average between the epochs changes nothing of the training."""
    seen = []
    for ema in (0.0, 0.9):
        learn = learner(cbs=Watch())
        with learn.no_bar(), learn.no_logging():
            Recipe(epochs=3, ema=ema).fit(learn)
        seen.append(learn.seen[-1])
    assert all(torch.equal(v, seen[1][k]) for k, v in seen[0].items())


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
