"""Pruning: smaller, and the same outputs, borders included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from battery import DIMS
from prune_networks import Residual, chain, data, masked, partial, same
from torch import nn

import dynconv_plugins as dc

DEPTHWISE = {"groups": 12, "bias": False}


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


@pytest.mark.parametrize("reader", [{"kernel_size": 1}, {"kernel_size": 3, "padding": 1}], ids=["bias", "border"])
@pytest.mark.parametrize("readers", [1, 2])
def test_a_single_filter_that_is_off_counts_once(reader, readers):
    """It has to stay, constant as it is."""
    last = [nn.Conv2d(1, 4, **reader), nn.Conv2d(4, 2, 1)][:readers]
    model = masked(nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), *last), 1.0)
    model[0].zeta.data[:] = -1
    nn.init.ones_(model[0].bias)
    same(model, data())


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


def test_a_shared_activation_is_no_obstacle():
    model = masked(chain(activation=nn.ReLU()), 0.4)
    model[5] = model[2]
    pruned, report = same(model, data())
    assert not partial(pruned[:6]) and report.layers["3"].filters[1] < 12


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
