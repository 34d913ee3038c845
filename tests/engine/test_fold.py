"""Folding: exact where attention is constant, the mean of the factors where it is not."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from battery import DIMS, GEOMETRIES, STATIC, build, channels, data
from torch import nn

import dynconv_plugins as dc

ROWS = [
    *GEOMETRIES,
    {"padding_mode": "circular"},
    {"padding": "same", "kernel_size": 4, "padding_mode": "reflect"},
    {"padding": 2, "kernel_size": 4},
    {"stride": 2, "groups": 8},
    {"groups": 8, "padding": 0},
]
NAMES = pytest.mark.parametrize("name", dc.registry.names())
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def constant(name: str, dims: int = 2, **options) -> nn.Module:
    """An operator whose attention is constant for one sample, over positions too."""
    op = build(name, dims, **options).eval()
    if name == "localsoft":
        nn.init.zeros_(op.attention.local.weight)
    return op


@NAMES
@DIMS
@pytest.mark.parametrize("geometry", ROWS, ids=str)
def test_exact_for_one_sample(name, dims, geometry):
    """The attention of one sample, seen several times, is its own mean; all of the operator comes back."""
    op = constant(name, dims, **geometry)
    x = data(dims, batch=1, size=6, in_channels=op.in_channels)
    static, report = dc.fold(op, [x, x.expand(3, *x.shape[1:])])
    torch.testing.assert_close(static(x), op(x), **CLOSE)
    torch.testing.assert_close(static(x[0]), op(x)[0], **CLOSE)
    stays = name == "orconv" and geometry.get("kernel_size") != 1
    assert bool(report.left) == stays and report.samples == 4
    if name == "dcd" and geometry.get("groups", 1) > 1:
        assert static.main.groups == geometry["groups"]
    elif not stays:
        assert type(static) is STATIC[dims]
        assert static.groups == geometry.get("groups", 1) and static.padding_mode == geometry.get(
            "padding_mode", "zeros"
        )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("orconv", {"pool": "mean"}),
        ("hard", {"mask": "task"}),
        ("hard", {"mask": "task", "granularity": "filter", "groups": 2}),
    ],
)
@DIMS
def test_exact_for_any_input_without_attention(name, options, dims):
    op = build(name, dims, **options).eval()
    static, report = dc.fold(op, [data(dims)])
    x = data(dims, batch=5, size=7) ** 2
    assert type(static) is STATIC[dims] and not report.left
    torch.testing.assert_close(static(x), op(x), **CLOSE)


@NAMES
@DIMS
def test_a_fresh_conversion_folds_back(name, dims):
    """`load_static` makes attention count for nothing, whatever the samples are."""
    for options in ({}, {"groups": 2}, {"groups": 8}):
        conv = STATIC[dims](**channels(options), kernel_size=3, padding=1, **options).double()
        op = dc.dynamize(copy.deepcopy(conv), name)
        if op.preserves_static:
            static, _ = dc.fold(op, [data(dims, batch=4)])
            torch.testing.assert_close(static(data(dims)), conv(data(dims)), **CLOSE)


def test_mean_is_per_sample_and_does_not_depend_on_batches():
    op, x = build("odconv4x").eval(), 5 * data(batch=5) * torch.tensor([0.1, 1, -3, 5, 9]).reshape(-1, 1, 1, 1)
    a, s, c, f = op.attention(x)
    weight = torch.einsum("k,koihw->oihw", a.mean(0), op.stacked)
    weight = weight * s.mean(0) * c.mean(0)[:, None, None] * f.mean(0)[:, None, None, None]
    whole, _ = dc.fold(op, [x])
    parts, report = dc.fold(op, [(x[:1], None), [x[1:], "ignored"]])
    assert report.samples == 5
    torch.testing.assert_close(whole.weight, weight)
    torch.testing.assert_close(parts.weight, whole.weight, **CLOSE)
    assert (weight - dc.fold(op, [x[:1]])[0].weight).abs().max() > 0.02


def test_positions_are_averaged_within_a_sample():
    """Maps of different sizes count the same."""
    op = build("localsoft").eval()
    small, large = data(size=4), data(size=9) + 1
    a = torch.cat([op.attend(x).kernel.flatten(2).mean(2) for x in (small, large)]).mean(0)
    static, _ = dc.fold(op, [small, large])
    torch.testing.assert_close(static.weight, torch.einsum("k,koihw->oihw", a, op.stacked))


def test_switches_become_how_often_they_are_on():
    op = build("hard").eval()
    x = data(batch=8) * torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(-1, 1, 1, 1)
    on = op.attention(x).output.mean(0)
    assert set(on.tolist()) & {i / 8 for i in range(1, 8)}, "no switch of this test varies"
    static, _ = dc.fold(op, [x])
    torch.testing.assert_close(static.weight, op.weight * on[:, None, None, None])


def classifier(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding="same"),
    ]
    net = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return dc.dynamize(net, name, where="all", **options)


@pytest.mark.parametrize("name", ["odconv4x", "localsoft", "dcd", "orconv"])
def test_model_is_left_alone(name):
    model = classifier(name).train()
    model[1].eval()
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    hooks = [len(m._forward_hooks) for m in model.modules()]
    static, report = dc.fold(model, [torch.randn(4, 3, 8, 8)])
    assert not static.training and static is not model
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert [m.training for m in model.modules()] == modes
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert set(report.folded) | set(report.left) == set(dc.operators_in(model))
    assert static.state_dict().keys() == nn.Sequential(*static).state_dict().keys()


def test_report_and_its_numbers():
    pytest.importorskip("fvcore", reason="fvcore comes with the study extra")
    model, x = classifier("odconv4x"), torch.randn(4, 3, 8, 8)
    static, report = dc.fold(model, [x])
    plain = dc.complexity(static, (1, 3, 8, 8))
    assert report.folded == ("0", "3") and report.left == {} and report.lost is None
    assert report.before[:2] == dc.complexity(model, (1, 3, 8, 8)) and report.after[:2] == plain
    assert plain.macs == 64 * (3 * 8 * 9 + 8 * 8 * 9) + 8 * 5 and plain.params == sum(
        p.numel() for p in static.parameters()
    )
    assert "2 of 2 operators" in str(report) and f"{plain.params:,d}" in str(report)


def test_accuracy_lost():
    """A gate that lets the stronger channel pass; frozen where the first is stronger, it lets that one pass always."""
    op = dc.GlobalSoft2d(2, 2, 1, bias=False)
    op.weight.data.copy_(torch.eye(2).reshape(2, 2, 1, 1))
    op.attention.gate.weight.data.copy_(torch.tensor([[50.0, -50.0], [-50.0, 50.0]]))
    model = nn.Sequential(op, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    first, second = torch.tensor([2.0, 1.0]).reshape(1, 2, 1, 1), torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    validation = [(first.expand(2, 2, 3, 3), torch.zeros(2)), (torch.cat([first, second]), torch.tensor([0, 1]))]
    _, report = dc.fold(model, [first], validation)
    assert report.accuracy_before == 1.0 and report.accuracy_after == 0.75 and report.lost == 25.0
    assert "100.00% -> 75.00%  (25.00 points lost)" in str(report)


def test_pixel_accuracy_leaves_255_out_and_resizes():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = dc.GlobalSoft2d(2, 2, 1, bias=False)
            self.conv.weight.data.copy_(torch.eye(2).reshape(2, 2, 1, 1))

        def forward(self, x):
            return self.conv(x)[..., ::2, ::2]

    x = torch.zeros(1, 2, 4, 4)
    x[:, 0, :, :2], x[:, 1, :, 2:] = 1, 1  # class 0 on the left, class 1 on the right
    y = torch.tensor([[0, 0, 1, 1]] * 3 + [[1, 255, 255, 255]])
    _, report = dc.fold(Half(), [x], [(x, y[None])])
    assert report.accuracy_before == report.accuracy_after == 12 / 13


@pytest.mark.parametrize(
    ("loader", "validation", "named"),
    [
        ([], None, "empty"),
        ([{"x": 1}], None, "dict"),
        ([()], None, "tuple"),
        ([torch.zeros(2, 3, 8, 8)], [], "empty"),
        ([torch.zeros(2, 3, 8, 8)], [torch.zeros(2, 3, 8, 8)], "batches \\(x, y\\)"),
        ([torch.zeros(2, 3, 8, 8)], [(torch.zeros(2, 3, 8, 8), torch.zeros(3))], r"labels \[3\]"),
    ],
)
def test_bad_loaders(loader, validation, named):
    with pytest.raises(dc.UserError, match=named) as error:
        dc.fold(classifier("odconv"), loader, validation)
    assert "\n" not in str(error.value)


def test_validation_that_can_be_read_only_once_is_refused_before_any_work():
    def loader():
        raise AssertionError("read")
        yield

    with pytest.raises(dc.UserError, match="validation is read twice, a generator only once"):
        dc.fold(classifier("odconv"), loader(), ((x, y) for x, y in ()))


def test_nothing_to_fold():
    with pytest.raises(dc.UserError, match="nothing to fold"):
        dc.fold(nn.Sequential(nn.Conv2d(3, 4, 3)), [torch.zeros(1, 3, 8, 8)])


def test_an_operator_under_two_names_and_one_that_never_runs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = self.b = dc.DyConv2d(3, 3, 3, padding=1)
            self.idle = dc.DyConv2d(3, 3, 3)

        def forward(self, x):
            return self.b(self.a(x))

    static, report = dc.fold(Net(), [torch.randn(2, 3, 6, 6)])
    assert static.a is static.b and type(static.a) is nn.Conv2d
    assert report.folded == ("a",) and report.left == {"idle": "did not run"}
    assert "idle: did not run" in str(report)


def test_hooks_that_have_nothing_left_to_do_are_gone():
    model = dc.anneal(classifier("localsoft"), 30.0, 1.0, steps=4)
    static, _ = dc.fold(model, [torch.randn(2, 3, 8, 8)])
    assert not static._forward_hooks and not static._forward_pre_hooks
    assert "annealing_step" not in static.state_dict()
    assert model._forward_hooks and "annealing_step" in model.state_dict()


def test_a_folded_model_that_annealed_itself_loads_weights():
    timm = pytest.importorskip("timm")
    pytest.importorskip("timm_models")
    options = {"num_classes": 4, "channels": (8, 8, 8, 8)}
    model = timm.create_model("resnet18_dyconv", anneal_steps=100, **options)
    static, _ = dc.fold(model, [torch.randn(2, 3, 32, 32)])
    again = copy.deepcopy(static)
    again.fc.weight.data.zero_()
    again.load_state_dict(static.state_dict())
    assert torch.equal(again.fc.weight, static.fc.weight)


def test_frozen_parameters_stay_frozen():
    op = build("dyconv")
    op.weight.requires_grad_(False)
    assert not dc.fold(op, [data()])[0].weight.requires_grad


@pytest.mark.parametrize("name", ["odconv4x", "localsoft", "dcd", "hard"])
def test_a_trained_resnet_folds_and_exports(name, tmp_path):
    timm = pytest.importorskip("timm")
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    twin = timm.create_model("resnet10t", num_classes=4)
    model = dc.dynamize(copy.deepcopy(twin), name)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    static, report = dc.fold(model, [x], [(x, y)])
    assert not dc.operators_in(static) and not report.left and 0 <= report.accuracy_after <= 1
    assert static(x).isfinite().all()
    assert [tuple(p.shape) for n, p in static.named_parameters() if "bias" not in n] == [
        tuple(p.shape) for n, p in twin.named_parameters() if "bias" not in n
    ]
    stream = io.BytesIO()
    torch.save(static.state_dict(), stream)
    stream.seek(0)
    again = copy.deepcopy(static)
    again.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(again(x), static(x))
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(static, (x[:2],), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(x), static(x))
    file = tmp_path / "static.onnx"
    torch.onnx.export(static, (x[:2],), file, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), static(x), rtol=1e-4, atol=1e-4)
