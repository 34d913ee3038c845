"""Class activation maps against their formulas written out by hand, on networks of every kind of end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("pytorch_grad_cam")
pytest.importorskip("cv2")
pytest.importorskip("matplotlib")

from dynconv_plugins.report.cam import GRAD_CAM, HIRES_CAM, grad_cam, last_map, suited


def network(dims: int, classes: int = 3) -> nn.Sequential:
    conv = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}[dims]
    torch.manual_seed(0)
    body = [conv(2, 6, 3, padding=1), nn.ReLU(), conv(6, 8, 3, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(*body, pool(1), nn.Flatten(), nn.Linear(8, classes)).eval()


@pytest.mark.parametrize(("dims", "shape"), [(1, (1, 2, 32)), (2, (1, 2, 12, 20))])
def test_grad_cam_is_the_formula(dims: int, shape: tuple[int, ...]) -> None:
    """Weights of the channels are the means of the gradients; the map is the positive part of their sum (eq. 1, 2)."""
    import cv2

    model, x = network(dims), torch.randn(shape)
    layer = last_map(model, x)
    assert layer == "3"
    maps = model[:4](x).detach().requires_grad_()
    out = model[4:](maps)
    out[0, out[0].argmax()].backward()
    space = tuple(range(2, 2 + dims))
    raw = (maps.grad.mean(space, keepdim=True) * maps).sum(1)[0].relu().detach().numpy()
    assert suited(model, x, layer) == GRAD_CAM
    ours, chosen = grad_cam(model, x, layer, GRAD_CAM)
    assert chosen == int(out[0].argmax())
    assert ours.shape == shape[2:] and ours.min() >= 0 and ours.max() <= 1
    # Enlarged as the package does it; series are images of height one to it.
    large = cv2.resize(raw if dims == 2 else raw[None], (shape[-1], shape[-2] if dims == 2 else 1))
    large = (large - large.min()) / (large.max() - large.min())
    np.testing.assert_allclose(ours, large if dims == 2 else large[0], atol=1e-5)
    assert all(p.grad is None for p in model.parameters()), "nothing stays behind"


def test_grad_cam_finds_what_decides() -> None:
    """A network that looks for bright spots looks at the bright spot."""
    model = network(2, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model[0].weight[0, 0, 1, 1] = model[2].weight[0, 0, 1, 1] = model[6].weight[1, 0] = 1.0
    x = torch.zeros(1, 2, 16, 16)
    x[0, 0, 10:14, 2:6] = 1.0
    heat, chosen = grad_cam(model, x, last_map(model, x), GRAD_CAM)
    assert chosen == 1
    y, along = np.unravel_index(heat.argmax(), heat.shape)
    assert 9 <= y <= 14 and 1 <= along <= 6
    assert heat[:6].max() < 0.05


def test_frozen_layers_and_segmentation() -> None:
    model = network(1).requires_grad_(False)
    model[-1].requires_grad_(True)
    assert grad_cam(model, torch.randn(1, 2, 32), "3", GRAD_CAM)[0].max() > 0, (
        "as in Net1_DCNN, whose convolutions are frozen"
    )
    masks = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(1, 3, 10, 14)
    assert suited(masks, x, "1") == GRAD_CAM, "the target is a sum over positions"
    assert grad_cam(masks, x, "1", GRAD_CAM)[0].shape == (10, 14)


def test_the_background_is_looked_at_where_there_is_nothing_else() -> None:
    """Of segmentations, the largest class but the background, be it a single pixel."""
    scores = nn.Sequential(nn.Identity(), nn.Conv2d(3, 3, 1, bias=False)).eval()
    with torch.no_grad():
        scores[1].weight.copy_(torch.eye(3)[..., None, None])
    x = torch.zeros(1, 3, 8, 8)
    x[0, 0] = 1.0
    assert grad_cam(scores, x, "0", GRAD_CAM)[1] == 0
    x[0, 2, 3, 3] = 2.0
    assert grad_cam(scores, x, "0", GRAD_CAM)[1] == 2


def test_small_maps_are_passed_over_and_a_network_without_any_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 4, 1))
    assert last_map(model, torch.randn(1, 3, 16, 16)) == "1"
    assert last_map(model, torch.randn(1, 3, 32, 32)) == "2"
    with pytest.raises(ValueError, match="no layer"):
        last_map(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.randn(1, 3, 2, 2))


def by_hand(model: nn.Module, layer: str, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """At a layer of a series' network: the map of HiResCAM, and that of Grad-CAM, both ``[L']``."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out))
    out = model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(out[0, out[0].argmax()], kept[0])
    hires = (gradient * kept[0]).sum(1)[0].relu()
    return hires.detach().numpy(), (gradient.mean(2, True) * kept[0]).sum(1)[0].relu().detach().numpy()


@pytest.mark.parametrize("arch", ["Net1_CNN", "Net2_CNN", "Net1_DCNN"])
def test_before_flatten_and_linear_gradients_stay_where_they_are(arch: str) -> None:
    """The study's own networks: of Grad-CAM half the maps were empty."""
    tsai_models = pytest.importorskip("tsai_models")
    cv2 = pytest.importorskip("cv2")
    torch.manual_seed(0)
    model = getattr(tsai_models, arch)(1, 37, 176).eval()
    with torch.no_grad():
        # As training leaves them now and then: a channel speaks for the class here and against it there, and a little
        # more against it.
        weight = model.head[3].weight.view(256, -1, 22)
        weight -= weight.mean(-1, keepdim=True) + 3e-4
        model.head[3].bias.fill_(5.0)
        model.head[6].weight.abs_()
    for x in torch.randn(5, 1, 1, 176).cumsum(-1) / 5:
        layer = last_map(model, x)
        assert (layer, suited(model, x, layer)) == ("head.0", HIRES_CAM)
        hires, averaged = by_hand(model, layer, x)
        assert not averaged.any() and not grad_cam(model, x, layer, GRAD_CAM)[0].any()
        ours, _ = grad_cam(model, x, layer, HIRES_CAM)
        assert ours.max() > 0.9 and ours.std() > 0.05, "every series has a map that differs along it"
        expected = cv2.resize((hires - hires.min())[None] / (hires.max() - hires.min()), (176, 1))[0]
        np.testing.assert_allclose(ours, (expected - expected.min()) / np.ptp(expected), atol=1e-4)


@pytest.mark.parametrize("kind", ["static", "odconv"])
@pytest.mark.parametrize("name", ["FCN", "ResNet", "Inception"])
def test_pooled_networks_keep_grad_cam(name: str, kind: str) -> None:
    """Both maps agree there, where pooling follows at once: the gradient is the same at each position."""
    pytest.importorskip("tsai")
    from tsai_models.archs import ARCHS, build

    cls = {"static": ARCHS["ODConv" + name].twin, "odconv": ARCHS["ODConv" + name].cls}[kind]
    torch.manual_seed(0)
    model, x = build(cls, 1, 5, 64).eval(), torch.randn(1, 1, 64)
    layer = last_map(model, x)
    assert suited(model, x, layer) == GRAD_CAM
    maps = [grad_cam(model, x, layer, method)[0] for method in (GRAD_CAM, HIRES_CAM)]
    assert maps[0].max() > 0.9
    np.testing.assert_allclose(*maps, atol=1e-4)


def test_a_module_that_runs_twice_is_looked_at_where_it_ran_last() -> None:
    """As InceptionTime's one activation behind each of its sums."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.act = nn.Conv1d(1, 4, 3, 2, 1), nn.Conv1d(4, 4, 3, 2, 1), nn.ReLU()
            self.pool, self.last = nn.AdaptiveAvgPool1d(1), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.pool(self.deep(x)).flatten(1))

        def deep(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.second(self.act(self.first(x))))

    cv2 = pytest.importorskip("cv2")
    torch.manual_seed(1)
    model, x = Twice().eval(), torch.randn(1, 1, 64)
    ours, chosen = grad_cam(model, x, "act", GRAD_CAM)
    with torch.no_grad():
        raw = torch.einsum("c,ncl->nl", model.last.weight[chosen], model.deep(x)).relu().numpy()
    assert raw.shape == (1, 16)
    expected = cv2.resize(raw - raw.min(), (64, 1))[0]
    np.testing.assert_allclose(ours, (expected - expected.min()) / np.ptp(expected), atol=1e-4)
