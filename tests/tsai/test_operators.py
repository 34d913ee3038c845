"""Every registered operator in tsai's networks and ours: one epoch with tsai's learners, and what is saved of it."""

import pytest
import torch
from fastai.learner import load_learner
from fastai.metrics import accuracy
from tsai.data.core import TSClassification
from tsai.inference import get_X_preds  # noqa: F401 - patches Learner
from tsai.learner import ts_learner
from tsai.tslearner import TSClassifier

import dynconv_plugins as dc
from tsai_models import BudgetCallback, DynamicArch, Net1_DCNN, Net2_DCNN, TemperatureCallback, pretrain

OPERATORS = dc.registry.names()
NETWORKS = {
    "FCN": lambda operator: (DynamicArch("FCN", operator), {"layers": [8, 8, 8]}),
    "ResNet": lambda operator: (DynamicArch("ResNet", operator), {}),
    "InceptionTime": lambda operator: (DynamicArch("InceptionTime", operator), {"nf": 4, "depth": 3, "ks": 12}),
    "Net1_DCNN": lambda operator: (Net1_DCNN, {"operator": operator, "width": 8}),
    "Net2_DCNN": lambda operator: (Net2_DCNN, {"operator": operator, "width": 8}),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_trains(operator, network, make_dls):
    torch.manual_seed(0)
    arch, config = NETWORKS[network](operator)
    learn = ts_learner(make_dls(), arch, metrics=accuracy, cbs=[TemperatureCallback(), BudgetCallback()], **config)
    found = dc.operators_in(learn.model)
    assert found and all(isinstance(op, dc.registry.get(operator).classes[1]) for op in found.values())
    before = {name: op.weight.detach().clone() for name, op in found.items()}
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert torch.isfinite(torch.tensor(learn.recorder.values[-1])).all()
    assert not [name for name, op in found.items() if torch.equal(op.weight, before[name])]
    assert all(p.isfinite().all() for p in learn.model.parameters())


@pytest.mark.parametrize("operator", OPERATORS)
def test_pretraining_and_then_training(operator, make_dls):
    torch.manual_seed(0)
    dls = make_dls()
    quiet = {"fit": lambda learn: _fit(learn, 1), "arch_config": {"operator": operator, "width": 8}}
    model = pretrain(Net2_DCNN, dls, 1, **quiet)
    learn = ts_learner(dls, model)
    attention = {n: p.detach().clone() for n, p in model.named_parameters() if ".attention." in n}
    _fit(learn, 1)
    after = dict(model.named_parameters())
    # Whether the kernels are frozen or not; only `orconv` has no attention.
    assert not attention or any(not torch.equal(after[n], p) for n, p in attention.items())


def _fit(learn, epochs: int) -> None:
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, 1e-2)


@pytest.mark.parametrize("operator", ["localsoft", "hard"])
def test_exported_learner_predicts_the_same(operator, series, tmp_path):
    X, y, split = series
    learn = TSClassifier(
        X,
        y,
        splits=split,
        tfms=[None, TSClassification()],
        arch=DynamicArch("FCN", operator),
        arch_config={"layers": [8, 8, 8]},
        bs=12,
        path=tmp_path,
        device="cpu",
        cbs=BudgetCallback(),
    )
    _fit(learn, 1)
    learn.export("model.pkl")
    with pytest.warns(UserWarning, match="load_learner"):
        again = load_learner(tmp_path / "model.pkl")
    with learn.no_bar(), again.no_bar():
        assert torch.equal(again.get_X_preds(X[split[1]])[0], learn.get_X_preds(X[split[1]])[0])
