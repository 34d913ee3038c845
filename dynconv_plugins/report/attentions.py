"""What the operators themselves attend with: gates and taps as heat maps, mixtures by position as colours.

ORConv has no attention: what varies with the input is which of its rotations wins where, and that is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..demo.attention import KINDS, recorded
from ..demo.figures import gates, spatial_maps
from ..inspection.draw import COLOURS
from ..inspection.layers import Layer, explain
from .studio import Picture, Studio, plt

LAYERS, SPATIAL = 3, 8  # at most, of one kind of attention
BY_POSITION = (
    "One row an input, one column a layer: which {0} at each position, a colour a {1}; pale where none is ahead of the "
    "others."
)


@dataclass(frozen=True)
class Drawn:
    """A picture with what it means."""

    title: str
    caption: str
    picture: Picture


def attentions(
    network: nn.Module, x: torch.Tensor, shown: Sequence[np.ndarray], labels: Sequence[str], studio: Studio, name: str
) -> list[Drawn]:
    """Draws every kind of attention that the network has, for the same inputs; none where nothing depends on them.

    Args:
        network: With dynamic operators.
        x: Inputs ``[N, ...]``.
        shown: The same for the eye, see `dynconv_plugins.study.hosts`.
        labels: A name for each.
        studio: Keeps the pictures.
        name: Start of their names.
    """
    seen = recorded(network, x)
    eye = [s / 255 if s.ndim == 3 else s for s in shown]
    made: list[Drawn] = []
    # Operators that are not of the one equation have factors of their own beside its four (DCD).
    spatial = {k: s.numpy() for k, v in seen.items() if (s := getattr(v, "spatial", None)) is not None}
    if spatial:
        figure = spatial_maps(eye, _some(spatial, SPATIAL))
        caption = "One row an input, one column a layer, early to late: factors of the kernel's positions."
        caption += _picked(spatial, SPATIAL)
        made.append(Drawn("Spatial attention", caption, _keep(studio, f"{name}-spatial", figure, "spatial attention")))
    for attribute, title, axis, caption in KINDS:
        found = {k: f for k, v in seen.items() if (f := getattr(v, attribute, None)) is not None}
        flat = {k: v.numpy() for k, v in found.items() if v.ndim == 2}
        if flat:
            picture = _keep(studio, f"{name}-{attribute}", gates(_some(flat), labels, axis), title.lower())
            made.append(Drawn(title, f"{caption} One row an input, layers side by side.{_picked(flat)}", picture))
        maps = {k: v.numpy() for k, v in found.items() if v.ndim > 2 and v[0, 0].numel() > 1}
        if maps:
            kernels = [f"kernel {i + 1}" for i in range(max(v.shape[1] for v in maps.values()))]
            picture = _keep(
                studio, f"{name}-{attribute}-map", _mixtures(eye, _some(maps), kernels), "kernels by position"
            )
            caption = BY_POSITION.format("kernel weighs most", "kernel") + _picked(maps)
            made.append(Drawn("Kernels by position", caption, picture))
    return made + _beyond(network, x, eye, studio, name)


def _beyond(network: nn.Module, x: torch.Tensor, eye: Sequence[np.ndarray], studio: Studio, name: str) -> list[Drawn]:
    """What is no factor of the one equation: rotations, DCD's latent channels, masks that were learned for the task."""
    each = [{layer.name: layer for layer in explain(network, x[i : i + 1])[0]} for i in range(len(x))]
    made: list[Drawn] = []
    if maps := _stacked(each, lambda layer: layer.kernel_map if _rotates(layer) else None):
        rotations = max((layer.labels for layer in each[0].values() if _rotates(layer)), key=len)
        picture = _keep(studio, f"{name}-rotations", _mixtures(eye, _some(maps), rotations), "rotations by position")
        caption = BY_POSITION.format("rotation wins most filters", "rotation") + _picked(maps)
        made.append(Drawn("Rotations by position", caption, picture))
    if mixing := _stacked(each, lambda layer: layer.mixing):
        picture = _keep(studio, f"{name}-mixing", _panels(eye, _some(mixing), _signed), "latent mixing")
        caption = "One row an input, one column a layer: how latent channels are mixed; blue negative, red positive, "
        caption += f"each by its own largest.{_picked(mixing)}"
        made.append(Drawn("Latent mixing", caption, picture))
    if masks := _stacked(each[:1], lambda layer: layer.mask):
        picture = _keep(studio, f"{name}-mask", gates(_some(masks), ["all inputs"], "filters"), "task mask")
        caption = "The part of each filter that a mask learned for the task leaves on, whatever the input."
        caption += _picked(masks)
        made.append(Drawn("Task mask", caption, picture))
    return made


def _rotates(layer: Layer) -> bool:
    return layer.kernel_map is not None and layer.labels[0].endswith("°")


def _stacked(each: Sequence[dict[str, Layer]], get: Callable[[Layer], np.ndarray | None]) -> dict[str, np.ndarray]:
    """One figure of all inputs' layers by name, ``[N, ...]``, of the layers that have it."""
    having = [name for name, layer in each[0].items() if get(layer) is not None]
    return {name: np.stack([get(layers[name]) for layers in each]) for name in having}


def _keep(studio: Studio, name: str, figure, what: str) -> Picture:
    return studio.scan(name, figure, f"{what} of several inputs, by layer")


def _some(layers: dict[str, np.ndarray], most: int = LAYERS) -> dict[str, np.ndarray]:
    """A few layers at even distances, the first and the last among them."""
    names = list(layers)
    picks = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int))
    return {names[i]: layers[names[i]] for i in picks}


def _picked(layers: dict[str, np.ndarray], most: int = LAYERS) -> str:
    """Which of the layers `_some` shows, where these are not all."""
    if len(layers) <= most:
        return ""
    which = "the first, a middle and the last" if most == LAYERS else f"{most}, from the first to the last,"
    return f" Shown are {which} of {len(layers)} such layers."


def _panels(
    eye: Sequence[np.ndarray], layers: dict[str, np.ndarray], paint: Callable[[plt.Axes, np.ndarray], None]
) -> plt.Figure:
    """One row an input, one column a layer of ``[N, ...]``, each panel painted with its part of them."""
    flat = eye[0].ndim == 1
    size = (1.3 * (len(layers) + 1) * (1.5 if flat else 1), (0.8 if flat else 1.35) * len(eye) + 0.4)
    figure, grid = plt.subplots(len(eye), len(layers) + 1, figsize=size, squeeze=False)
    for i, image in enumerate(eye):
        if flat:
            grid[i][0].plot(image, lw=1, color="#1a1f29")
            grid[i][0].margins(x=0)
        else:
            grid[i][0].imshow(image)
        for axes, values in zip(grid[i][1:], layers.values(), strict=True):
            paint(axes, values[i])
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0][0].set_title("input", fontsize=8)
    for axes, name in zip(grid[0][1:], layers, strict=True):
        axes.set_title(name.removeprefix("backbone."), fontsize=7)
    figure.tight_layout(pad=0.3)
    return figure


def _mixtures(eye: Sequence[np.ndarray], maps: dict[str, np.ndarray], names: Sequence[str]) -> plt.Figure:
    """Weights by position, ``[N, K, *S]`` a layer: the winner's colour, as strong as it is ahead."""

    def paint(axes: plt.Axes, weights: np.ndarray) -> None:
        flat = weights.ndim == 2
        painted = mixed(weights)
        axes.imshow(painted[None] if flat else painted, aspect="auto" if flat else "equal", interpolation="nearest")

    figure = _panels(eye, maps, paint)
    marks = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[k % len(COLOURS)]) for k in range(len(names))]
    place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "ncols": 4, "frameon": False, "fontsize": 7}
    figure.legend(marks, names, **place)
    return figure


def _signed(axes: plt.Axes, values: np.ndarray) -> None:
    most = abs(values).max() or 1.0
    axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")


def mixed(weights: np.ndarray) -> np.ndarray:
    """Mixing weights ``[K, *S]`` that add up to one as colours ``[*S, 3]``; white where all are alike."""
    kernels = len(weights)
    palette = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    palette = palette[np.arange(kernels) % len(palette)]
    ahead = (weights.max(0) * kernels - 1) / max(1, kernels - 1)
    ahead = np.clip(ahead, 0, 1)[..., None] ** 0.5
    return 1 - ahead + ahead * palette[weights.argmax(0)]
