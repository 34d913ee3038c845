"""The operators' own attentions as pictures, and galleries of real networks of a host."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("pytorch_grad_cam")
pytest.importorskip("cv2")
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

import untrained

from dynconv_plugins import dynamize
from dynconv_plugins.report import attentions as drawing
from dynconv_plugins.report import pictures
from dynconv_plugins.report.attentions import attentions, mixed
from dynconv_plugins.report.collect import collect
from dynconv_plugins.report.pictures import gallery
from dynconv_plugins.report.studio import Studio


def network(dims: int, classes: int = 3) -> nn.Sequential:
    conv = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}[dims]
    torch.manual_seed(0)
    body = [conv(2, 6, 3, padding=1), nn.ReLU(), conv(6, 8, 3, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(*body, pool(1), nn.Flatten(), nn.Linear(8, classes)).eval()


def test_the_colour_of_a_mixture() -> None:
    weights = np.array([[1.0, 0.25, 0.0], [0.0, 0.25, 1.0], [0.0, 0.25, 0.0], [0.0, 0.25, 0.0]])
    colours = mixed(weights)
    assert colours.shape == (3, 3) and (colours[1] == 1).all(), "undecided is white"
    assert np.abs(colours[0] - colours[2]).max() > 0.3, "kernels differ in colour"


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("odconv4x", {"Spatial attention", "Kernel gates", "Channel gates", "Filter gates"}),
        ("localsoft", {"Kernels by position"}),
        ("globalsoft", {"Channel gates"}),
        ("hard", {"Filter gates"}),
        ("orconv", {"Rotations by position"}),
        ("dcd", {"Filter gates", "Latent mixing"}),
    ],
)
@pytest.mark.parametrize("dims", [1, 2])
def test_every_kind_of_attention_is_drawn(name: str, kinds: set[str], dims: int, tmp_path: Path) -> None:
    model = dynamize(network(dims), name, where="all").eval()
    size = (32,) if dims == 1 else (16, 16)
    x = torch.randn(2, 2, *size)
    shown = [np.zeros(32) if dims == 1 else np.zeros((16, 16, 3), np.uint8)] * 2
    drawn = attentions(model, x, shown, ["a", "b"], Studio(tmp_path), "net")
    assert {d.title for d in drawn} == kinds
    for d in drawn:
        assert (tmp_path / f"{d.picture.name}.png").is_file() and d.picture.alt and d.caption


@pytest.mark.parametrize(
    ("name", "options", "kinds"),
    [("hard", {"mask": "task"}, {"Task mask"}), ("orconv", {"pool": "mean"}, set()), ("orconv", {"kernel": 1}, set())],
)
def test_what_does_not_vary_with_the_input(name: str, options: dict, kinds: set[str], tmp_path: Path) -> None:
    """A mask that was learned is shown once; kernels that never turn show nothing."""
    model = nn.Sequential(nn.Conv2d(2, 6, options.pop("kernel", 3), padding=1))
    model = dynamize(model, name, where="all", **options).eval()
    x, shown = torch.randn(3, 2, 8, 8), [np.zeros((8, 8, 3), np.uint8)] * 3
    assert {d.title for d in attentions(model, x, shown, ["a", "b", "c"], Studio(tmp_path), "net")} == kinds


def test_each_input_has_its_own_rotations(tmp_path: Path, monkeypatch) -> None:
    """Stripes: the kernel that answers to upright ones wins as it is, or turned by a quarter."""
    seen = []
    monkeypatch.setattr(
        drawing, "_mixtures", lambda eye, maps, names: seen.append((maps, names)) or drawing.plt.figure()
    )
    model = dynamize(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False)), "orconv", where="all").eval()
    with torch.no_grad():
        next(model.parameters()).copy_(torch.tensor([[-1.0, 2, -1]] * 3)[None, None])
    stripes = (torch.arange(12) % 3 == 0).float().expand(12, 12)
    x = torch.stack([stripes, stripes.T])[:, None]
    (found,) = attentions(model, x, [np.zeros((12, 12, 3), np.uint8)] * 2, ["|", "-"], Studio(tmp_path), "net")
    assert found.title == "Rotations by position"
    ((maps, names),) = seen
    (won,) = maps.values()
    assert names == ["0°", "90°", "180°", "270°"] and won.shape == (2, 4, 12, 12)
    inner = won[..., 3:9, 3:9]
    upright, level = inner[:, [0, 2]].sum(1), inner[:, [1, 3]].sum(1)
    on_stripe = x[:, 0, 3:9, 3:9].numpy() > 0
    assert (upright[0][on_stripe[0]] == 1).all() and (level[1][on_stripe[1]] == 1).all()


@pytest.fixture
def series(fabricate, tmp_path: Path) -> Path:
    pytest.importorskip("tsai")
    scores = {"static": [0.5], "localsoft": [0.6], "odconv": [0.6]}
    return untrained.series(fabricate(), tmp_path, scores, ["FCN"])


def test_pictures_of_a_hosts_networks(series: Path, tmp_path: Path) -> None:
    task = collect([series]).tasks["series"]
    found = gallery(task, Studio(tmp_path / "img"), count=2)
    assert found.notes == []
    (grid,) = found.grids
    assert grid.heads == ["input", "static", "local soft", "ODConv"] and len(grid.rows) == 2
    assert grid.title == "Attention maps", "the paper's Figure 7 is of images"
    assert all(p is not None and p.svg for _, row in grid.rows for p in row)
    assert all(p.note for _, row in grid.rows for p in row[1:]), "which class it is a map of"
    assert [name for name, _ in found.attentions] == ["local soft", "ODConv"]


def test_a_network_that_cannot_be_loaded_gets_a_line(series: Path, tmp_path: Path) -> None:
    (series / "series/odconv/seed0/run/model.pth").write_bytes(b"broken")
    (series / "series/localsoft/seed0/run/model.pth").unlink()
    found = gallery(collect([series]).tasks["series"], Studio(tmp_path / "img"), count=2)
    assert len(found.notes) == 2 and all("cannot be loaded" in n and "\n" not in n for n in found.notes)
    assert found.grids[0].heads == ["input", "static"]


def test_an_operator_without_a_picture_gets_a_line(fabricate, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("tsai")
    root = untrained.series(fabricate(), tmp_path, {"static": [0.5], "orconv": [0.6]}, ["Net1"])
    monkeypatch.setattr(pictures, "attentions", lambda *_: [])
    found = gallery(collect([root]).tasks["series"], Studio(tmp_path / "img"), count=1)
    assert found.notes == [f"ORConv: {pictures.STILL}"] and found.attentions == []


def test_segmentations_of_every_head(tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    heads = ["fpn", "deeplabv3plus"]
    untrained.masks(tmp_path / "out", heads, ["static", "localsoft"])
    found = gallery(collect([tmp_path / "out"]).tasks["masks"], Studio(tmp_path / "img"), count=2)
    assert found.notes == []
    assert [g.title for g in found.grids] == [
        f"{what} of {head}" for head in sorted(heads) for what in ("Segmentations", "Attention maps")
    ]
    assert found.grids[0].heads == ["input", "truth", "static", "local soft"]
    assert all(len(row) == 4 and all(row) for _, row in found.grids[0].rows) and found.grids[0].legend
    light = [sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for name, colour in found.grids[0].legend[1:]]
    assert min(light) >= 240, "every class can be told from the background's black"
    names = [p.name for p in (tmp_path / "img").iterdir()]
    assert len(names) == len(set(names)) and any("deeplabv3plus-mask1" in n for n in names)
    assert [name for name, _ in found.attentions] == ["deeplabv3plus local soft", "fpn local soft"]


@pytest.mark.parametrize(
    ("name", "layers", "told"),
    [
        (
            "odconv4x",
            9,
            {"Shown are the first, a middle and the last of 9 such layers.", "Shown are 8, from"},
        ),
        ("localsoft", 4, {"Shown are the first, a middle and the last of 4 such layers."}),
        ("orconv", 4, {"Shown are the first, a middle and the last of 4 such layers."}),
        ("dcd", 4, {"Shown are the first, a middle and the last of 4 such layers."}),
        ("odconv4x", 3, set()),
    ],
)
def test_captions_say_which_layers_are_shown(name: str, layers: int, told: set[str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(layers)]
    model = dynamize(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), name, where="all").eval()
    shown = [np.zeros((8, 8, 3), np.uint8)] * 2
    drawn = attentions(model, torch.randn(2, 8, 8, 8), shown, ["a", "b"], Studio(tmp_path), "net")
    captions = [d.caption for d in drawn]
    assert captions and all(("Shown are" in caption) == bool(told) for caption in captions)
    assert all(any(words in caption for caption in captions) for words in told)
