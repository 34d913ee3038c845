"""Dynamic networks from trained static twins."""

import copy
import pickle

import pytest
import torch
from fastai.metrics import accuracy
from tsai.learner import ts_learner
from tsai.models.FCN import FCN as tsai_fcn
from tsai.models.utils import build_ts_model

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError
from tsai_models import (
    ARCHS,
    DynamicArch,
    Net1_CNN,
    Net1_DCNN,
    Net2_CNN,
    Net2_DCNN,
    freeze_kernels,
    from_static,
    pretrain,
    thaw_kernels,
)
from tsai_models.archs import build

# They do nothing but mix kernels: frozen copies of one kernel would be a static convolution.
MIXERS = {"dyconv", "a2d2c", "a2d2cplus", "localsoft"}
DYNAMIC = sorted(name for name, arch in ARCHS.items() if arch.twin)


def kernels(model):
    return {k: (op.weight.detach().clone(), op.bias.detach().clone()) for k, op in dc.operators_in(model).items()}


def same(a, b):
    return all(torch.equal(x, y) for k in a for x, y in zip(a[k], b[k], strict=True))


@pytest.mark.parametrize("num_kernels", [1, 4])
@pytest.mark.parametrize("name", DYNAMIC)
def test_starts_as_the_twin(name, num_kernels):
    dynamic = build(ARCHS[name].cls, 2, 5, num_kernels=num_kernels)
    static = build(ARCHS[name].twin, 2, 5)
    with torch.no_grad():  # statistics and weights unlike any initialisation's
        for value in [*static.parameters(), *(b for b in static.buffers() if b.is_floating_point())]:
            value.add_(0.1 * torch.rand_like(value))
    assert from_static(dynamic, static) is dynamic
    x = torch.randn(3, 2, 40)
    torch.testing.assert_close(dynamic.eval()(x), static.eval()(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [n for n in dc.registry.names() if dc.registry.get(n).classes[1].preserves_static])
def test_every_operator_starts_as_the_twin(name):
    torch.manual_seed(0)
    static, dynamic = build(Net2_CNN, 1, 5), build(Net2_DCNN, 1, 5, operator=name)
    x = torch.randn(3, 1, 40)
    torch.testing.assert_close(from_static(dynamic, static).eval()(x), static.eval()(x), atol=1e-4, rtol=1e-4)
    trainable = [p.requires_grad for op in dc.operators_in(dynamic).values() for p in (op.weight, op.bias)]
    assert set(trainable) == {name in MIXERS}


def test_orconv_starts_from_the_twins_kernels():
    static, dynamic = build(Net1_CNN, 1, 5), build(Net1_DCNN, 1, 5, operator="orconv")
    from_static(dynamic, static)
    assert torch.equal(dynamic.backbone.conv1.weight, static.backbone.conv1.weight)
    x = torch.randn(3, 1, 40)
    assert not torch.allclose(dynamic.eval()(x), static.eval()(x))
    # It has nothing but its kernel: frozen, only the head would learn, and on kernels that were not learned rotated.
    assert all(p.requires_grad for p in dynamic.parameters())


def test_a_frozen_task_mask_goes_on_learning():
    model = freeze_kernels(build(Net1_DCNN, 1, 3, operator="hard", mask="task"))
    model(torch.randn(2, 1, 30)).sum().backward()
    conv = model.backbone.conv1
    assert conv.weight.grad is None and conv.bias.grad is None and conv.zeta.grad is not None


def test_frozen_kernels_outlast_fine_tuning(make_dls):
    dls = make_dls()
    learn = ts_learner(dls, from_static(build(Net2_DCNN, 1, 3), build(Net2_CNN, 1, 3)), metrics=accuracy)
    before = kernels(learn.model)
    heads = {k: op.attention.logits.weight.detach().clone() for k, op in dc.operators_in(learn.model).items()}
    fully_connected = learn.model.head[-1].weight.detach().clone()
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(2, 1e-2)
        learn.unfreeze()
        learn.fit_one_cycle(1, 1e-2)
    assert same(kernels(learn.model), before)
    assert all(not op.weight.requires_grad for op in dc.operators_in(learn.model).values())
    assert not torch.equal(learn.model.head[-1].weight, fully_connected)
    for name, op in dc.operators_in(learn.model).items():
        assert not torch.equal(op.attention.logits.weight, heads[name])


def test_copies_stay_frozen_and_thaw():
    model = freeze_kernels(build(Net1_DCNN, 1, 3))
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        again.requires_grad_(True)
        again(torch.randn(2, 1, 30)).sum().backward()
        assert again.backbone.conv1.weight.grad is None
        assert again.backbone.conv1.attention.logits.weight.grad is not None
        thaw_kernels(again)(torch.randn(2, 1, 30)).sum().backward()
        assert again.backbone.conv1.weight.grad is not None
    assert not model.backbone.conv1.weight.requires_grad


def test_frozen_norms_stay_frozen():
    static, dynamic = build(Net1_CNN, 1, 3), build(Net1_DCNN, 1, 3).train()
    norms = [m for m in dynamic.backbone.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    for norm in norms:
        norm.eval()
    from_static(dynamic, static)
    assert norms and not any(norm.training for norm in norms)
    assert dynamic.backbone.conv1.training


def test_unfrozen_on_request():
    model = from_static(build(Net1_DCNN, 1, 3), build(Net1_CNN, 1, 3), freeze=False)
    assert all(p.requires_grad for p in model.parameters())


def test_a_twin_that_does_not_fit_is_not_trained_first(make_dls):
    widths = iter((8, 16))  # no two networks of it are alike

    def FCN(c_in, c_out):
        return build(tsai_fcn, c_in, c_out, layers=[8, 8, next(widths)])

    with pytest.raises(UserError, match="is not the static twin"):
        pretrain(DynamicArch(FCN, "odconv"), make_dls(), 1, fit=lambda _: pytest.fail("trained"))


def test_the_twin_is_the_same_for_every_operator(make_dls):
    def first(**config):
        torch.manual_seed(0)
        seen = []
        pretrain(Net1_DCNN, dls, 1, fit=lambda learn: seen.append(learn.model.state_dict()), arch_config=config)
        return seen[0]

    dls = make_dls()
    torch.manual_seed(0)
    static = build_ts_model(Net1_CNN, dls=dls, device=dls.device).state_dict()
    for config in ({"operator": "odconv"}, {"operator": "localsoft"}):
        twin = first(**config)
        assert all(torch.equal(twin[key], value) for key, value in static.items())


def test_weight_normalised_networks_have_a_twin(make_dls):
    model = pretrain(DynamicArch("TCN", "odconv"), make_dls(), 1, fit=lambda _: None)
    assert dc.operators_in(model)


def test_pretrain_is_the_whole_procedure(make_dls):
    dls = make_dls()
    seen = []

    def fit(learn):
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(10, 1e-2)
        seen.append(learn)

    torch.manual_seed(0)
    model = pretrain(Net2_DCNN, dls, 10, fit=fit, arch_config={"width": 16, "reduction": 0.25})
    twin = seen[0].model
    assert type(twin) is Net2_CNN and type(model) is Net2_DCNN
    x = dls.valid.one_batch()[0]
    torch.testing.assert_close(model.eval()(x), twin.eval()(x), atol=1e-4, rtol=1e-4)
    before = kernels(model)
    learn = ts_learner(dls, model, metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(3, 1e-2)
        assert learn.validate()[1] > 0.8
    assert same(kernels(model), before)


@pytest.mark.parametrize(
    "dynamic, static, names",
    [
        (Net2_DCNN, Net1_CNN, "backbone.conv2"),
        (Net1_DCNN, Net2_CNN, "conv2"),
        (Net1_CNN, Net1_CNN, "no dynamic convolution"),
    ],
)
def test_not_a_twin(dynamic, static, names):
    dynamic, static = build(dynamic, 1, 3), build(static, 1, 3)
    before = copy.deepcopy(dynamic.state_dict())
    with pytest.raises(UserError, match=names):
        from_static(dynamic, static)
    assert all(torch.equal(v, before[k]) for k, v in dynamic.state_dict().items())


def test_other_number_of_classes():
    with pytest.raises(UserError, match="head"):
        from_static(build(Net1_DCNN, 1, 3), build(Net1_CNN, 1, 4))
