"""dynamize: starts as the static network, learns from there, and touches nothing it should not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

import dynconv_plugins as dc
from dynconv_plugins.remaking import Remaking

timm = pytest.importorskip("timm", reason="timm comes with the timm extra")


def network(name: str = "resnet18", **options) -> nn.Module:
    torch.manual_seed(0)
    options = {"zero_init_last": False, "num_classes": 10} | options
    return timm.create_model(name, **options)


def images(batch: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("operator", ["odconv", "odconv4x"])
@pytest.mark.parametrize("training", [False, True])
def test_starts_as_the_static_network(operator, training):
    model = network().train(training)
    want = network().train(training)(images())
    assert dc.dynamize(model, operator) is model
    got = model(images())
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()


def test_attentions_get_gradients_and_kernels_part():
    model = dc.dynamize(network(), "odconv4x")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    labels = torch.tensor([1, 2])
    operators = dc.operators_in(model)
    assert len(operators) == 16
    for op in operators.values():
        assert all(torch.equal(k, op.kernels[0]) for k in op.kernels)
    nn.functional.cross_entropy(model(images()), labels).backward()
    for name, op in operators.items():
        c, f, s, _a = op.attention.logits.weight.grad.split(op.attention.sizes)
        assert min(g.abs().max() for g in (c, f, s)) > 0, f"{name}: a gate gets no gradient"
    optimizer.step()
    for name, op in operators.items():
        assert not torch.equal(op.kernels[0], op.kernels[1]), f"{name}: equal kernels after a step"
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images()), labels).backward()
    for name, op in operators.items():
        *_, a = op.attention.logits.weight.grad.split(op.attention.sizes)
        assert a.abs().max() > 0, f"{name}: the kernel attention gets no gradient"
        assert op.attention.squeeze.weight.grad.abs().max() > 0, name


def test_placement_of_the_paper():
    resnet = set(dc.operators_in(dc.dynamize(network("resnet50"), "odconv")))
    assert len(resnet) == 48 and not any("downsample" in name or name == "conv1" for name in resnet)
    deep_stem = set(dc.operators_in(dc.dynamize(network("resnet26d"), "odconv")))
    assert all(name.startswith("layer") and "downsample" not in name for name in deep_stem)
    mobile = dc.dynamize(timm.create_model("mobilenetv2_050"), "odconv")
    static = [n for n, m in mobile.named_modules() if isinstance(m, nn.Conv2d)]
    assert static == ["conv_stem"]


@pytest.mark.parametrize(
    ("where", "count"),
    [("all", 20), ("blocks", 16), (r"^layer4\.", 5), (lambda name, conv: conv.kernel_size == (7, 7), 1)],
)
def test_where(where, count):
    assert len(dc.operators_in(dc.dynamize(network(), "odconv", where=where))) == count


def test_geometry_mode_and_freezing_are_kept():
    conv = nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2), dilation=2, groups=2, bias=False, padding_mode="reflect")
    conv.weight.requires_grad_(False)
    op = dc.dynamize(conv.eval().double(), "odconv4x")
    assert not op.training and not op.weight.requires_grad and op.weight.dtype == torch.float64 and op.bias is None
    x = torch.randn(2, 4, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(op(x), conv(x))


@pytest.mark.parametrize("name", ["densenet121", "efficientnet_b0", "convnext_atto", "regnetx_002"])
def test_any_model(name):
    """Architectures that nothing here was written for start as themselves as well."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    want = model(images(1))
    dc.dynamize(model, "odconv")
    assert dc.operators_in(model)
    torch.testing.assert_close(model(images(1)), want, rtol=1e-3, atol=1e-4)


def test_own_forward_is_left_alone():
    """A convolution that is not plain nn.Conv2d (padding from the input, standardised weights) would change meaning."""
    model = timm.create_model("tf_mobilenetv3_small_minimal_100", num_classes=7).eval()
    kept = [n for n, m in model.named_modules() if type(m).__name__ == "Conv2dSame"]
    dc.dynamize(model, "odconv")
    assert kept and all(type(model.get_submodule(n)).__name__ == "Conv2dSame" for n in kept)


def test_unknown_names():
    with pytest.raises(dc.UnknownName, match="unknown operator 'odcnv'; did you mean odconv"):
        dc.dynamize(network(), "odcnv")
    with pytest.raises(dc.UnknownName, match="unknown placement 'block'; did you mean blocks"):
        dc.dynamize(network(), "odconv", where="block")
    with pytest.raises(ValueError, match="chooses no convolution"):
        dc.dynamize(network(), "odconv", where=lambda *_: False)
    for where in (["layer1"], 0):
        with pytest.raises(ValueError, match="where must be a placement"):
            dc.dynamize(network(), "odconv", where=where)
    for operator in (None, dc.ODConv2d):
        with pytest.raises(dc.UnknownName, match="unknown operator"):
            dc.dynamize(network(), operator)
    for name, wrong, says in (
        ("odconv", {"reductoin": 0.5}, "unknown argument of odconv 'reductoin'; did you mean reduction"),
        ("globalsoft", {"num_kernels": 4}, "unknown argument of globalsoft 'num_kernels'"),
    ):
        with pytest.raises(dc.UnknownName, match=says):
            dc.dynamize(nn.Conv2d(3, 4, 3), name, **wrong)
        with pytest.raises(dc.UnknownName, match=says):
            dc.registry.build(name, 1, 3, 4, kernel_size=3, **wrong)
    with pytest.raises(ValueError, match="bias: taken from the convolution"):
        dc.dynamize(network(), "odconv", bias=True)
    with pytest.raises(ValueError, match="parametrised"):
        dc.dynamize(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), "odconv")


@pytest.mark.parametrize("name", dc.registry.names())
def test_on_the_meta_device(name):
    model = nn.Sequential(nn.Conv2d(8, 6, 3, device="meta"))
    dc.dynamize(model, name, where="all")
    assert all(p.is_meta for p in model.parameters()) and model(torch.empty(2, 8, 5, 5, device="meta")).is_meta


@pytest.mark.parametrize("name", dc.registry.names())
def test_weights_leave_the_meta_device_by_assignment(name):
    source = dc.registry.build(name, 2, 8, 6, 3).eval()
    with torch.device("meta"):
        model = dc.registry.build(name, 2, 8, 6, 3).eval()
    model.load_state_dict(source.state_dict(), assign=True)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(model(x), source(x))
    for key, value in source.named_buffers():
        assert torch.equal(model.get_buffer(key), value), key
    assert dc.budget(model.train()) == dc.budget(source)


@pytest.mark.parametrize("name", dc.registry.names())
def test_buffers_outlast_casts_and_the_meta_context(name):
    with torch.device("meta"):
        model = dc.registry.build(name, 2, 8, 6, 3, device="cpu")
    dc.set_temperature(model, 1 / 3)  # which bfloat16 would round
    remaking = [owner for owner in model.modules() if isinstance(owner, Remaking)]
    kept = [(owner, key, owner.get_buffer(key).clone()) for owner in remaking for key in owner.remade]
    assert kept or name in ("condconv", "dcd", "globalsoft"), "an operator whose buffers are not looked at"
    model.bfloat16().to_empty(device="cpu").float()
    for owner, key, value in kept:
        assert torch.equal(owner.get_buffer(key), value), key


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("name", dc.registry.names())
def test_buffers_of_others_are_cast_as_anywhere(name, taps):
    op = dc.registry.build(name, 2, 8, 8, taps)
    prune.l1_unstructured(op, "weight", 0.5)
    mask, x = op.weight_mask.double(), torch.randn(2, 8, 5, 5, dtype=torch.float64)
    op.to("cpu").double()
    assert op.weight_mask.dtype == torch.float64 and torch.equal(op.weight_mask, mask)
    assert op(x).isfinite().all()


@pytest.mark.parametrize("name", dc.registry.names())
def test_parametrized_operators_are_loaded(name):
    op, other = (weight_norm(dc.registry.build(name, 2, 8, 8, 3, bias=False)).eval() for _ in range(2))
    x = torch.randn(2, 8, 5, 5)
    op.load_state_dict(other.state_dict())
    assert torch.equal(op(x), other(x))


def test_a_failure_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, (1, 3)))
    with pytest.raises(ValueError, match="square"):
        dc.dynamize(model, "orconv", where="all")
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.Conv2d]


@pytest.mark.parametrize("operator", ["odconv4x", "a2d2c", "hard", "dcd", "localsoft"])
def test_explaining_a_training_model_changes_nothing(operator):
    model = dc.anneal(dc.dynamize(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), operator, where="all"))
    model(torch.randn(2, 3, 6, 6))
    buffers = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    dc.explain_backends(model, (2, 3, 6, 6))
    assert torch.equal(state, torch.get_rng_state())
    for name, buffer in model.named_buffers():
        assert buffer is buffers[name][0] and torch.equal(buffer, buffers[name][1]), name


class Tapped(nn.Module):
    """Calls `dynamic_conv` itself, beside a network of operators."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        self.network(x)
        return dc.dynamic_conv(x, torch.ones(1, 2, 3, 1, 1), dc.Attention())


def test_explain_names_every_layer_and_leaves_the_model_alone():
    model = dc.dynamize(network(), "odconv4x").eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    lines = dc.explain_backends(model, (2, 3, 64, 64)).splitlines()
    assert [line.split()[0] for line in lines] == list(dc.operators_in(model))
    assert all("the cost" in line for line in lines)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    tapped = Tapped(model)
    assert dc.explain_backends(tapped, (2, 3, 64, 64)).splitlines()[-1].split()[0] == "dynamic_conv"
    with dc.backend("gemm"):
        forced = dc.explain_backends(model, (2, 3, 64, 64)).splitlines()
    assert all(":  gemm  (" in line for line in forced)


def test_an_argument_that_the_operator_does_not_have_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    with pytest.raises(dc.UnknownName, match="reductoin"):
        dc.dynamize(model, "odconv", where="all", reductoin=0.5)
    assert not dc.operators_in(model)


def test_a_dynamic_model_is_refused_with_the_reason():
    model = dc.dynamize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), "odconv", where="all")
    with pytest.raises(ValueError, match="2 of its layers are dynamic already"):
        dc.dynamize(model, "odconv", where="all")


def test_explain_has_words_for_costs_without_end():
    depthwise, size = dc.ODConv2d(8, 8, 3, padding=1, groups=8).eval(), (1, 8, 6, 6)
    assert "mixture: never chosen here, only forced" in dc.explain_backends(depthwise, size)
    with dc.backend("reference"):
        forced = dc.explain_backends(depthwise, size)
    assert ":  reference  (" in forced and "grouped: cheaper, if it were not for the forced one" in forced
    assert "inf" not in forced and "0.0x" not in forced
