"""Pruning: smaller, and the same outputs, borders included."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from battery import DIMS, STATIC
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.prune import PartialConv

NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
DEPTHWISE = {"groups": 12, "bias": False}


def masked(
    model: nn.Module, rate: float = 0.5, granularity: str = "filter", where="all", double: bool = True
) -> nn.Module:
    """A model of hard operators with a random mask, and norms that are not at their start."""
    torch.manual_seed(1)
    model = dc.dynamize(model, "hard", where=where, mask="task", granularity=granularity)
    for op in dc.operators_in(model).values():
        if getattr(op, "mask", None) == "task":
            op.zeta.data = torch.where(torch.rand_like(op.zeta) < rate, 0.3, -0.3)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight), nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean, std=0.3), nn.init.uniform_(module.running_var, 0.5, 2.0)
    return (model.double() if double else model).eval()


def chain(dims: int = 2, activation: nn.Module | None = None, middle: dict | None = None, **options) -> nn.Module:
    """Convolution, norm, activation, a convolution of `middle`, norm, activation, and one convolution more."""
    conv, norm = STATIC[dims], NORM[dims]
    options = {"padding": 1, **options}
    activation = activation or nn.ReLU()
    layers = [conv(3, 12, 3, padding=1), norm(12), activation, conv(12, 12, 3, **options, **(middle or {})), norm(12)]
    return nn.Sequential(*layers, copy.deepcopy(activation), conv(12, 5, 3, **options))


def data(dims: int = 2, size: int = 7, batch: int = 3, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, channels, *(size,) * dims, dtype=torch.float64, generator=generator)


def same(model: nn.Module, x: torch.Tensor) -> tuple[nn.Module, dc.PruneReport]:
    """Prunes and compares the outputs; the copy that is left has nothing dynamic."""
    state = copy.deepcopy(model.state_dict())
    pruned, report = dc.prune(model)
    assert pruned is not model and not dc.operators_in(pruned) and not pruned.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    torch.testing.assert_close(pruned(x), model(x), rtol=1e-10, atol=1e-10)
    return pruned, report


def partial(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, PartialConv)]


@DIMS
@pytest.mark.parametrize("middle", [{}, DEPTHWISE, {"groups": 3}], ids=["dense", "depthwise", "grouped"])
@pytest.mark.parametrize("granularity", ["filter", "slice"])
@pytest.mark.parametrize(
    "options",
    [{}, {"padding": 0}, {"padding_mode": "circular"}, {"stride": 2, "padding": 2}, {"padding": "same"}],
    ids=str,
)
@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.SiLU()], ids=["relu", "silu"])
def test_outputs(dims, middle, granularity, options, activation):
    model = masked(chain(dims, activation, middle, **options), 0.4, granularity)
    _, report = same(model, data(dims, size=9))
    assert set(report.layers) == {"0", "3", "6"} and not report.untraced
    if granularity == "filter":
        assert sum(p.numel() for p in dc.prune(model)[0].parameters()) == report.after.params < report.before.params


@pytest.mark.parametrize(
    ("bias", "reader", "left"),
    [
        (-1.0, {"kernel_size": 3, "padding": 1}, 2),  # a ReLU's zero: nothing of it stays
        (1.0, {"kernel_size": 3, "padding": 1}, 3),  # a constant with a border: one filter for all of them
        (1.0, {"kernel_size": 3}, 2),  # no border: a bias
        (1.0, {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"}, 2),
        (1.0, {"kernel_size": 1, "bias": False}, 2),
    ],
)
def test_what_stays_of_filters_that_are_off(bias, reader, left):
    model = masked(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, **reader)), 1.0)
    model[0].zeta.data[1:5] = -1
    nn.init.constant_(model[1].bias, bias)
    nn.init.zeros_(model[0].bias), nn.init.zeros_(model[1].running_mean)
    pruned, report = same(model, data())
    same(model, data(size=12))
    assert report.layers["0"].filters == (6, left) and report.layers["3"].inputs == (6, left)
    assert report.layers["0"].on == pytest.approx(1 / 3)
    assert [type(layer) for layer in pruned] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    assert pruned[1].num_features == left == len(pruned[1].running_var)


def test_channels_that_nobody_reads_go_from_the_layer_that_makes_them():
    """Also from a static one."""
    model = masked(chain(), 1.0, "slice", where=lambda name, _: name == "3")
    model[3].zeta.data[:, 2:7] = -1
    pruned, report = same(model, data())
    assert report.layers["3"].inputs == (12, 7) and pruned[0].out_channels == 7


def test_cuts_go_on_along_the_network():
    """A filter all of whose inputs were off is off itself."""
    model = masked(nn.Sequential(*(nn.Conv2d(4, 4, 1, bias=False) for _ in range(4))), 1.0)
    for layer in model:
        layer.weight.data = torch.eye(4).double().reshape(4, 4, 1, 1) * 2
    model[0].zeta.data[2] = -1
    pruned, _ = same(model, data(channels=4))
    assert [conv.out_channels for conv in pruned] == [3, 3, 3, 4]


@pytest.mark.parametrize("head", ["pool", "max pool", "calls"])
def test_read_by_a_linear_layer(head):
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv1d(3, 8, 3, padding=1), nn.Linear(8 * 7, 5, bias=False)

        def forward(self, x):
            return self.linear(F.relu(torch.sigmoid(self.conv(x)).flatten(1), inplace=True))

    conv = nn.Conv1d(3, 8, 3, padding=1)
    rest = [nn.BatchNorm1d(8), nn.GELU()]
    model = {
        "pool": nn.Sequential(conv, *rest, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 5)),
        "max pool": nn.Sequential(conv, *rest, nn.MaxPool1d(2, padding=1), nn.Flatten(), nn.Linear(8 * 4, 5)),
        "calls": Calls(),
    }[head]
    model = masked(model, 1.0)
    for op in dc.operators_in(model).values():
        op.zeta.data[[1, 2, 6]] = -1
    pruned, report = same(model, data(1))
    assert report.layers[next(iter(report.layers))].filters == (8, 5)
    assert [m.in_features for m in pruned.modules() if isinstance(m, nn.Linear)][0] in (5, 5 * 4, 5 * 7)


@DIMS
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("middle", [{}, DEPTHWISE, {"groups": 3}], ids=["dense", "depthwise", "grouped"])
def test_everything_or_almost_everything_off(dims, rate, middle):
    same(masked(chain(dims, middle=middle), rate), data(dims))
    same(masked(chain(dims, nn.SiLU(), middle), rate, "slice"), data(dims))


class Residual(nn.Module):
    """A stream that several layers read and write."""

    def __init__(self, dims: int = 2, groups: int = 1) -> None:
        super().__init__()
        conv = STATIC[dims]
        self.stem = conv(3, 8, 3, padding=1)
        self.conv1, self.norm = conv(8, 8, 3, padding=1, groups=groups), NORM[dims](8)
        self.conv2 = conv(8, 8, 3, padding=1, groups=groups)

    def forward(self, x):
        x = self.stem(x)
        return x + self.conv2(F.relu(self.norm(self.conv1(x))))


@DIMS
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("granularity", ["filter", "slice"])
def test_what_several_layers_read_is_cut_in_each(dims, groups, granularity):
    model = masked(Residual(dims, groups), 1.0, granularity)
    for op in (model.conv1, model.conv2):
        op.zeta.data[:4] = -1
    model.conv1.zeta.data[:, 1:3] = -1 if granularity == "slice" else 1
    pruned, report = same(model, data(dims))
    assert report.layers["conv2"].filters == (8, 4)
    assert "conv2" in partial(pruned) and "stem" not in partial(pruned)
    if granularity == "slice" and groups == 1:
        assert report.layers["conv1"].inputs == (8, 6)


def test_small_cuts_that_would_cost_more_than_they_save_are_left():
    model = masked(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1)), 1.0)
    model[0].zeta.data[3] = -1
    pruned, report = same(model, data(channels=16))
    assert type(pruned[0]) is nn.Conv2d and report.layers["0"].filters == (16, 16)
    model[0].zeta.data[4] = -1
    assert dc.prune(model)[1].layers["0"].filters == (16, 14)


def test_a_shared_activation_is_no_obstacle():
    model = masked(chain(activation=nn.ReLU()), 0.4)
    model[5] = model[2]
    pruned, report = same(model, data())
    assert not partial(pruned[:6]) and report.layers["3"].filters[1] < 12


class Twice(nn.Module):
    """Convolutions whose filters must stay, because more reads them than one layer's forward."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        if self.kind == "called twice":
            return self.b(self.a(self.a(x)))
        if self.kind == "read twice":
            y = self.a(x)
            return self.b(y) + y.mean((2, 3), keepdim=True)
        if self.kind == "weight read":
            return self.b(self.a(x)) * self.a.bias.reshape(-1, 1, 1) + self.b.bias.reshape(-1, 1, 1)
        if self.kind == "unknown operation":
            return self.b(self.a(x).cumsum(1))
        if self.kind == "mixed positions":
            return self.b(self.a(x).flip(2) + torch.arange(7, device=x.device))
        return self.b(self.a(x)), self.a.weight.shape[0]


@pytest.mark.parametrize("kind", ["called twice", "read twice", "weight read", "unknown operation", "mixed positions"])
def test_filters_that_something_else_reads(kind):
    model = Twice(kind)
    model.a = masked(nn.Sequential(model.a), 0.5)[0]
    model.a.zeta.data[:2] = -1
    pruned, _ = same(model.double().eval(), data(channels=4))
    assert pruned.b.in_channels == 4 and len(pruned.a.bias) == 4


class Untraceable(nn.Module):
    """Control flow that depends on values, around two blocks that have none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = chain(), nn.Sequential(nn.Conv2d(5, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, x):
        x = self.first(x)
        return self.second(x) if x.sum() > 0 else self.second(-x)


def test_a_model_that_cannot_be_traced_is_cut_by_its_parts():
    model = masked(Untraceable(), 0.4)
    pruned, report = same(model, data())
    assert report.untraced == ("Untraceable",) and "not traced" in str(report)
    assert pruned.first[0].out_channels < 12
    assert isinstance(pruned.first[6], PartialConv)  # read by nobody knows whom


def test_hooks_and_parametrisations_keep_a_layer_as_it_is():
    model = masked(chain(), 0.5, where=lambda name, _: name == "3")
    model[3].zeta.data[:, :] = torch.tensor([-1.0] * 6 + [1.0] * 6).reshape(-1, 1, 1, 1)
    torch.nn.utils.parametrizations.weight_norm(model[6])
    model[0].register_forward_hook(lambda _m, _i, y: y * 2)
    pruned, report = same(model, data())
    assert pruned[6].in_channels == 12 and isinstance(pruned[3], PartialConv) and pruned[0].out_channels == 12


def test_other_dynamic_operators_stay():
    model = dc.dynamize(chain(), "odconv", where=lambda name, _: name == "0")
    model = dc.dynamize(model, "hard", where=lambda name, _: name == "3", mask="input")
    model = masked(model, 0.4, where=lambda name, _: name == "6")
    pruned, report = dc.prune(model)
    assert report.dynamic == ("0", "3") and list(dc.operators_in(pruned)) == ["0", "3"]
    assert "still dynamic: 0, 3" in str(report)
    torch.testing.assert_close(pruned(data()), model(data()))


@pytest.mark.parametrize("name", [None, "odconv", "hard"])
def test_nothing_to_prune(name):
    model = chain() if name is None else dc.dynamize(chain(), name, where="all")
    with pytest.raises(dc.UserError, match="nothing to prune.*mask='task'") as error:
        dc.prune(model)
    assert "\n" not in str(error.value)


def test_report():
    pytest.importorskip("fvcore", reason="fvcore comes with the study extra")
    model = masked(chain(), 0.4)
    pruned, report = dc.prune(model, (2, 3, 7, 7))
    for cost, network in ((report.before, model), (report.after, pruned)):
        assert cost[:2] == dc.complexity(network, (1, 3, 7, 7)) and cost.latency > 0
    assert report.after.macs < 0.5 * report.before.macs and report.difference < 1e-12
    text = str(report)
    assert "12 -> " in text and "latency" in text and f"{report.after.macs:,d}" in text
    assert dc.prune(model)[1].after.macs is None and "MAdds" not in str(dc.prune(model)[1])


def test_single_slices_leave_nothing_to_cut_and_the_report_says_so():
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3))
    pruned, report = same(masked(model, 0.5, "slice", where=lambda name, _: name == "3"), data())
    assert report.layers["3"][1:] == ((32, 32), (32, 32)) and report.layers["3"].on == pytest.approx(0.5, abs=0.05)
    assert "granularity='filter'" in str(report)
    assert not (pruned[3].weight != 0).flatten(2).any(2).all()


def test_a_wrong_cut_would_be_noticed(monkeypatch):
    from dynconv_plugins import chains

    model = masked(chain(), 0.4)
    monkeypatch.setattr(chains, "_pads_zeros", lambda _: False)
    with pytest.raises(RuntimeError, match="misread"):
        dc.prune(model, (1, 3, 7, 7))


@pytest.mark.parametrize("granularity", ["filter", "slice"])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_050", "seresnet18"])
def test_timm(name, granularity):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = masked(timm.create_model(name, num_classes=5), 0.4, granularity, where="blocks")
    pruned, report = same(model, data(size=40))
    assert not report.untraced
    if granularity == "filter":
        assert report.after.params < 0.6 * report.before.params
        blocks = [conv for name, conv in pruned.named_modules() if name.endswith(("conv_dw", "0.conv1"))]
        assert blocks and all(type(conv) is nn.Conv2d for conv in blocks)


@pytest.mark.parametrize("model", [chain(), Residual()], ids=["chain", "residual"])
def test_the_result_is_a_plain_model(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pruned, _ = dc.prune(masked(copy.deepcopy(model), 0.4, double=False))
    x = data().float()
    want = pruned(x)
    assert all(type(m).__module__.startswith(("torch.nn", __name__, "dynconv_plugins.prune")) for m in pruned.modules())
    stream = io.BytesIO()
    torch.save(pruned.state_dict(), stream)
    stream.seek(0)
    twin = copy.deepcopy(pruned)
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    twin.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(twin(x), want)
    shapes = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(pruned, (x[:2],), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(x), want)
    file = tmp_path / "pruned.onnx"
    torch.onnx.export(pruned, (x[:2],), file, dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-4, atol=1e-5)


def test_it_trains_on():
    """Fine-tuning a pruned network: every parameter gets a gradient."""
    pruned, _ = dc.prune(masked(Residual(), 0.5))
    pruned.train()(data()).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pruned.parameters())


def test_one_convolution_by_itself_and_without_a_batch():
    op = masked(nn.Conv2d(4, 8, 3, padding=1), 0.5)
    pruned, _ = same(op, data(channels=4))
    assert isinstance(pruned, PartialConv)
    torch.testing.assert_close(pruned(data(channels=4)[0]), op(data(channels=4))[0])
