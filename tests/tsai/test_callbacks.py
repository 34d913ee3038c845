"""The temperature callback within fastai's loops."""

import pytest
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from fastai.metrics import accuracy
from tsai.learner import ts_learner

import dynconv_plugins as dc
from dynconv_plugins.budget import Budget
from tsai_models import BudgetCallback, EpochBar, ODConvFCN, TemperatureCallback


class Spy(Callback):
    """Notes the temperature that each training batch runs with."""

    order = 100

    def __init__(self):
        self.seen = []

    def after_pred(self):
        if self.training:
            self.seen.append(next(iter(dc.operators_in(self.model).values())).attention.temperature.item())


@pytest.fixture
def learner(make_dls):
    spy = Spy()
    schedule = dc.LinearTemperature(start=9.0, end=1.0, epochs=2)
    learn = ts_learner(make_dls(), ODConvFCN, layers=[8, 8, 8], cbs=[TemperatureCallback(schedule), spy])
    with learn.no_bar(), learn.no_logging():
        yield learn, spy


# 36 series in batches of 12: three steps an epoch
FULL = [9 - 8 * i / 6 for i in range(6)] + [1.0] * 3


def test_falls_per_batch(learner):
    learn, spy = learner
    learn.fit(3)
    assert spy.seen == pytest.approx(FULL)


def test_second_fit_goes_on(learner):
    learn, spy = learner
    learn.fit(1)
    learn.fit(2)
    assert spy.seen == pytest.approx(FULL)


def test_start_epoch_resumes(learner):
    learn, spy = learner
    learn.fit(3, start_epoch=1)
    assert spy.seen == pytest.approx(FULL[3:])
    learn.fit(3, start_epoch=2)
    assert spy.seen == pytest.approx(FULL[3:] + FULL[6:])


def test_lr_find_and_prediction_do_not_count(learner):
    learn, spy = learner
    learn.lr_find(num_it=4, show_plot=False)
    spy.seen.clear()
    learn.fit(1)
    learn.get_preds()
    learn.fit(2)
    assert spy.seen == pytest.approx(FULL)


def test_validation_does_not_count(learner):
    learn, spy = learner
    learn.validate()
    for _ in range(3):
        learn.fit(1)
        learn.validate()
    assert spy.seen == pytest.approx(FULL)


def test_skipped_epochs_count(learner):
    learn, spy = learner
    learn.fit(1, start_epoch=1)
    learn.fit(2)
    assert spy.seen == pytest.approx(FULL[3:])


def test_default_schedule_is_the_papers():
    assert TemperatureCallback().schedule == dc.LinearTemperature(30.0, 1.0, 10.0)


def test_bar_shows_the_epochs_and_leaves_the_learner_picklable(make_dls, tmp_path, capsys):
    learn = ts_learner(make_dls(), ODConvFCN, layers=[8, 8, 8], cbs=EpochBar("fold 3", disable=False))
    with learn.no_bar(), learn.no_logging():
        learn.fit(2)
        learn.export("model.pkl")
    shown = capsys.readouterr().err
    assert "fold 3" in shown and "2/2" in shown and "valid_loss" in shown


def test_bar_is_no_obstacle_to_what_trains_nothing(make_dls, capsys):
    learn = ts_learner(make_dls(), ODConvFCN, layers=[8, 8, 8], metrics=accuracy, cbs=EpochBar("fold 3", disable=False))
    with learn.no_bar(), learn.no_logging():
        learn.validate()
        learn.get_preds()
        learn.lr_find(num_it=8, show_plot=False)
        learn.fit(1)
        learn.validate()
    assert capsys.readouterr().err.count("1/1") == 1


@pytest.fixture
def hard(make_dls):
    arch_config = {"operator": "hard", "ramp": 0, "budget": 0.0, "layers": [8, 8, 8]}
    learn = ts_learner(make_dls(), ODConvFCN, metrics=accuracy, cbs=BudgetCallback(), **arch_config)
    with learn.no_bar(), learn.no_logging():
        yield learn


def test_budget_is_logged_beside_the_metrics(hard):
    hard.fit(2)
    assert hard.recorder.metric_names[3:6] == ["accuracy", "mask_rate", "budget_loss"]
    first = dict(zip(hard.recorder.metric_names[1:-1], hard.recorder.values[0], strict=True))
    assert 0 < first["mask_rate"] <= 1 and 0 < first["budget_loss"] <= 50.1
    assert [m.name for m in hard.metrics] == ["accuracy"] and len(hard.validate()) == 2
    hard.fit(1)
    assert len(hard.recorder.values) == 1 and len(hard.recorder.values[0]) == 5


def test_the_budget_is_accumulated_as_the_loss_is(hard, monkeypatch):
    scales = []
    monkeypatch.setattr("tsai_models.callbacks.dc.set_loss_scale", lambda model, scale: scales.append(scale))
    hard.fit(1, cbs=GradientAccumulation(48))
    assert scales == [12 / 48] * 3


class Fails(Callback):
    """Ends a fit in its second epoch."""

    def after_batch(self):
        if self.training and self.epoch:
            raise RuntimeError("on purpose")


def test_budget_after_a_fit_that_failed(hard):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="on purpose"):
            hard.fit(2, cbs=Fails())
    assert len(hard.validate()) == 2 and [m.name for m in hard.metrics] == ["accuracy"]
    with pytest.raises(RuntimeError, match="on purpose"):
        hard.fit(2, cbs=Fails())
    hard.fit(1)
    assert hard.recorder.metric_names[3:] == ["accuracy", "mask_rate", "budget_loss", "time"]
    assert [m.name for m in hard.metrics] == ["accuracy"]


def test_budget_follows_the_gradient_scaler(hard):
    class Scaler:
        """Stands where fastai's MixedPrecision, for GPUs only, puts torch's."""

        def get_scale(self) -> float:
            return 1024.0

    hard.scaler = Scaler()
    hard.fit(1)
    scales = {m.loss_scale.item() for m in hard.model.modules() if isinstance(m, Budget)}
    assert scales == {1024.0}
    hard.scaler = None
    hard.fit(1)
    assert {m.loss_scale.item() for m in hard.model.modules() if isinstance(m, Budget)} == {1.0}


def test_budget_callback_leaves_other_models_alone(make_dls, tmp_path):
    learn = ts_learner(make_dls(), ODConvFCN, layers=[8, 8, 8], cbs=BudgetCallback())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        assert len(learn.recorder.values[0]) == 2
        learn.export("model.pkl")
    assert (tmp_path / "model.pkl").is_file()
