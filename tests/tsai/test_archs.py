"""Architectures inside tsai: every way of passing them, and what a tsai user does with the learner."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from fastai.learner import load_learner
from fastai.metrics import accuracy
from tsai.data.core import TSClassification
from tsai.inference import get_X_preds  # noqa: F401 - patches Learner
from tsai.learner import ts_learner
from tsai.models.layers import GAP1d
from tsai.models.utils import build_ts_model, change_model_head
from tsai.tslearner import TSClassifier

import dynconv_plugins as dc
from dynconv_plugins.errors import UnknownName, UserError
from tsai_models import ARCHS, DynamicArch, Net1_DCNN, ODConvFCN, ODConvInception, ODConvResNet
from tsai_models.archs import build, find, twin_of
from tsai_models.blind import blind

OURS = sorted(ARCHS)
DYNAMIC = sorted(name for name, arch in ARCHS.items() if arch.twin)
SMALL = {
    "ODConvFCN": {"layers": [8, 16, 8]},
    "ODConvInception": {"nf": 4, "depth": 3, "ks": 12},
    "Net1_CNN": {"width": 8},
    "Net2_CNN": {"width": 8},
    "Net1_DCNN": {"width": 8},
    "Net2_DCNN": {"width": 8},
}


def odconv_fcn(c_in, c_out, seq_len=None, **kwargs):
    """A user's own function, as `arch=`."""
    return ODConvFCN(c_in, c_out, seq_len, layers=[8, 8, 8], **kwargs)


@pytest.mark.parametrize("name", OURS)
def test_tsai_builds_the_very_class(name):
    """No fragment of the name makes tsai rebuild the model or pass other arguments."""
    model = build_ts_model(ARCHS[name].cls, c_in=2, c_out=5, seq_len=31, device="cpu", **SMALL.get(name, {}))
    assert type(model) is ARCHS[name].cls
    for length in (31, 7):
        assert model(torch.randn(3, 2, length)).shape == (3, 5)


@pytest.mark.parametrize("name", OURS)
def test_backbone_and_head_split_all_parameters(name):
    model = build(ARCHS[name].cls, 1, 4, **SMALL.get(name, {}))
    split = [id(p) for part in (model.backbone, model.head) for p in part.parameters()]
    assert sorted(split) == sorted(id(p) for p in model.parameters())
    x = torch.randn(2, 1, 30)
    model.eval()
    assert torch.equal(model.head(model.backbone(x)), model(x))


@pytest.mark.parametrize("name", DYNAMIC)
def test_num_kernels_and_reduction(name):
    model = build(ARCHS[name].cls, 1, 4, num_kernels=4, reduction=0.5, temperature=7.0, **SMALL.get(name, {}))
    operators = dc.operators_in(model).values()
    assert operators
    for op in operators:
        assert op.num_kernels == 4
        assert op.attention.squeeze.out_features == max(int(op.in_channels * 0.5), 16)
        assert op.attention.temperature == 7.0


@pytest.mark.parametrize("name", ["ODConvFCN", "ODConvResNet", "ODConvInception"])
def test_raw_series_and_shortcuts_stay_static(name):
    model = build(ARCHS[name].cls, 1, 4, **SMALL.get(name, {}))
    operators = dc.operators_in(model)
    assert all(op.in_channels > 1 for op in operators.values())
    assert not any("shortcut" in path for path in operators)
    everywhere = build(ARCHS[name].cls, 1, 4, where="all", **SMALL.get(name, {}))
    assert len(dc.operators_in(everywhere)) > len(operators)


@pytest.mark.parametrize("name", ["ODConvFCN", "ODConvResNet", "ODConvInception"])
def test_same_state_dict_names_as_the_twin(name):
    dynamic, static = (build(cls, 1, 4, **SMALL.get(name, {})) for cls in (ARCHS[name].cls, ARCHS[name].twin))
    ours = {k for k in dynamic.state_dict() if ".attention." not in k}
    assert ours == set(static.state_dict())


def test_attention_of_the_nets_depends_on_z_normalised_series():
    """The mean of such a series is zero: without the lift every sample would get the same kernel."""
    x = torch.randn(4, 1, 50)
    x = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)
    model = build(ARCHS["Net1_DCNN"].cls, 1, 3).eval()
    with dc.record_attention(model) as record:
        model(x)
    spatial = record["backbone.conv1"][0].spatial
    assert (spatial[0] - spatial[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["XceptionTime", "FCNPlus", "ResNet", "TCN", "XCM", "LSTM_FCN"])
def test_any_tsai_architecture_trains_a_step(name, make_dls):
    learn = ts_learner(make_dls(), DynamicArch(name, "odconv4x"), metrics=accuracy)
    operators = dc.operators_in(learn.model)
    before = {k: op.weight.detach().clone() for k, op in operators.items()}
    assert operators
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    unmoved = [k for k, op in operators.items() if torch.equal(op.weight, before[k])]
    assert not unmoved
    with dc.record_attention(learn.model) as record:
        learn.model(torch.zeros(2, 1, 40))
    assert set(record) == set(operators) and all(record.values())


@pytest.mark.parametrize(
    "name, raw", [("InceptionTimePlus", "inception.0."), ("XceptionTime", "xception.0."), ("OmniScaleCNN", "net.0.")]
)
def test_convolutions_that_see_the_same_of_every_series_stay_static(name, raw):
    """Those before the first nonlinearity, whatever the architecture; the model and the generator are left alone."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.manual_seed(0)
    network = build(find(name), 2, 3, 40)
    drawn = torch.get_rng_state()
    found = blind(network, 2, 40)
    assert found and all(raw in path for path in found if "shortcut" not in path) and network.training
    assert torch.equal(torch.get_rng_state(), drawn) and not torch.equal(drawn, before)
    operators = dc.operators_in(build(DynamicArch(name, "odconv"), 2, 3, 40))
    assert operators and not operators.keys() & found
    assert blind(torch.nn.Linear(3, 3), 2) == set()


@pytest.mark.parametrize("cls", [ODConvFCN, ODConvResNet, ODConvInception])
def test_tsai_can_change_the_head(cls):
    model = build(cls, 1, 3, **SMALL.get(cls.__name__, {}))
    change_model_head(model, lambda nf, c_out, seq_len: torch.nn.Sequential(GAP1d(1), torch.nn.Linear(nf, 7)))
    assert model(torch.randn(2, 1, 30)).shape == (2, 7)
    assert not any(key.startswith("head") for key in model.state_dict())


@pytest.mark.parametrize("form", ["class", "function", "instance", "dynamic"])
def test_classifier_takes_every_form_and_exports(form, series, tmp_path):
    X, y, split = series
    arch, config = {
        "class": (ODConvFCN, {"layers": [8, 8, 8]}),
        "function": (odconv_fcn, {}),
        "instance": (odconv_fcn(1, 3), {}),
        "dynamic": (DynamicArch("FCN", "odconv"), {"layers": [8, 8, 8]}),
    }[form]
    tfms = [None, TSClassification()]
    learn = TSClassifier(
        X, y, splits=split, tfms=tfms, arch=arch, arch_config=config, bs=12, path=tmp_path, device="cpu"
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-2)
        probabilities, _, decoded = learn.get_X_preds(X[split[1]], with_decoded=True)
        learn.export("model.pkl")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="load_learner")
            again = load_learner(tmp_path / "model.pkl")
        with again.no_bar():
            assert torch.equal(again.get_X_preds(X[split[1]])[0], probabilities)
    assert probabilities.shape == (12, 3)
    assert set(np.unique(decoded)) <= {"c0", "c1", "c2"}


@pytest.mark.parametrize("cls", [ODConvFCN, ODConvResNet, ODConvInception])
def test_ts_learner_exports(cls, make_dls, tmp_path):
    """ts_learner keeps `arch` on the learner, so that it has to be picklable too."""
    learn = ts_learner(make_dls(), cls)
    learn.export("model.pkl")
    assert type(torch.load(tmp_path / "model.pkl", weights_only=False).model) is cls


def test_learner_tools(make_dls, series):
    learn = ts_learner(make_dls(), ODConvFCN, layers=[8, 8, 8], metrics=accuracy)
    weights = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with learn.no_bar(), learn.no_logging():
        assert learn.lr_find(num_it=8, show_plot=False).valley > 0
        assert all(torch.equal(v, weights[k]) for k, v in learn.model.state_dict().items())
        learn.fine_tune(1)
        learn.show_results()
    assert len(learn.opt.param_lists) == 2


def test_learns(make_dls):
    torch.manual_seed(0)
    learn = ts_learner(make_dls(), ODConvFCN, layers=[16, 16, 16], metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(12, 1e-2)
        assert learn.validate()[1] > 0.8


def test_dynamic_arch_pickles():
    arch = pickle.loads(pickle.dumps(DynamicArch("FCN", "odconv", num_kernels=2)))
    assert arch.__name__ == "FCN"
    assert {op.num_kernels for op in dc.operators_in(arch(1, 2)).values()} == {2}


def test_dynamic_arch_places_as_our_classes_do():
    for name in ("FCN", "ResNet", "InceptionTime"):
        ours = {"FCN": ODConvFCN, "ResNet": ODConvResNet, "InceptionTime": ODConvInception}[name]
        small = SMALL.get(ours.__name__, {})
        by_arch = build(DynamicArch(name, "condconv"), 1, 4, **small)
        assert set(dc.operators_in(by_arch)) == set(dc.operators_in(build(ours, 1, 4, **small)))
    everywhere = build(DynamicArch("FCN", "condconv", where="all"), 1, 4)
    assert set(dc.operators_in(everywhere)) == {"convblock1.0", "convblock2.0", "convblock3.0"}


def test_operator_arguments():
    given = {"mask": "task", "budget": 0.25}
    for model in (
        build(ODConvFCN, 1, 4, operator="hard", operator_args=given, layers=[8, 8, 8]),
        build(ODConvFCN, 1, 4, operator="hard", **given, layers=[8, 8, 8]),
        build(DynamicArch("FCN", "hard", **given), 1, 4, layers=[8, 8, 8]),
        build(Net1_DCNN, 1, 4, operator="hard", operator_args=given),
    ):
        assert {(op.mask, op.budget.target) for op in dc.operators_in(model).values()} == {("task", 0.25)}
    # Both the network and the operator have a width: by itself it is the network's.
    model = build(Net1_DCNN, 1, 4, operator="localsoft", width=8, operator_args={"width": 5})
    assert model.backbone.conv1.out_channels == 8 and len(model.backbone.conv1.attention.state) == 5


def test_unknown_operator_arguments():
    with pytest.raises(UnknownName, match="unknown argument of hard 'mesk'; did you mean mask"):
        DynamicArch("FCN", "hard", mesk="task")
    for arch in (ODConvFCN, Net1_DCNN):
        with pytest.raises(UnknownName, match="unknown argument of globalsoft 'num_kernels'"):
            build(arch, 1, 3, operator="globalsoft", operator_args={"num_kernels": 4})


def test_unknown_names():
    with pytest.raises(UnknownName, match="Net2_DCNN"):
        find("Net2_DCN")
    with pytest.raises(UnknownName, match="InceptionTime"):
        find("InceptionTim")
    with pytest.raises(UnknownName, match="odconv"):
        DynamicArch("FCN", "odcon")
    with pytest.raises(UserError, match="no convolution"):
        DynamicArch("MLP", "odconv", where="all")(1, 2, 20)
    with pytest.raises(UserError, match="where='blocks' chooses no convolution"):
        DynamicArch("MLP", "odconv")(1, 2, 20)
    with pytest.raises(UserError, match="static twin"):
        twin_of(ARCHS["Net1_CNN"].cls)
