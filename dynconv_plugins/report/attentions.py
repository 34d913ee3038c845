"""What the operators themselves attend with: gates and taps as heat maps, mixtures by position as colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..demo.attention import KINDS, recorded
from ..demo.figures import gates, spatial_maps
from ..inspection.draw import COLOURS
from .studio import Picture, Studio

LAYERS = 3


@dataclass(frozen=True)
class Drawn:
    """A picture with what it means."""

    title: str
    caption: str
    picture: Picture


def attentions(
    network: nn.Module, x: torch.Tensor, shown: Sequence[np.ndarray], labels: Sequence[str], studio: Studio, name: str
) -> list[Drawn]:
    """Draws every kind of attention that the network has, for the same inputs.

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
        figure = spatial_maps(eye, _some(spatial, 8))
        caption = "One row an input, one column a layer, early to late: factors of the kernel's positions."
        made.append(Drawn("Spatial attention", caption, _keep(studio, f"{name}-spatial", figure, "spatial attention")))
    for attribute, title, axis, caption in KINDS:
        found = {k: f for k, v in seen.items() if (f := getattr(v, attribute, None)) is not None}
        flat = {k: v.numpy() for k, v in found.items() if v.ndim == 2}
        if flat:
            picture = _keep(studio, f"{name}-{attribute}", gates(_some(flat), labels, axis), title.lower())
            made.append(Drawn(title, f"{caption} One row an input, layers side by side.", picture))
        maps = {k: v.numpy() for k, v in found.items() if v.ndim > 2 and v[0, 0].numel() > 1}
        if maps:
            picture = _keep(studio, f"{name}-{attribute}-map", _mixtures(eye, _some(maps)), "kernels by position")
            caption = (
                "One row an input, one column a layer: which kernel weighs most at each position, a colour a kernel; "
            )
            made.append(Drawn("Kernels by position", caption + "pale where none is ahead of the others.", picture))
    return made


def _keep(studio: Studio, name: str, figure, what: str) -> Picture:
    return studio.scan(name, figure, f"{what} of several inputs, by layer")


def _some(layers: dict[str, np.ndarray], most: int = LAYERS) -> dict[str, np.ndarray]:
    """A few layers at even distances, the first and the last among them."""
    names = list(layers)
    picks = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int))
    return {names[i]: layers[names[i]] for i in picks}


def _mixtures(eye: Sequence[np.ndarray], maps: dict[str, np.ndarray]):
    """Weights of the kernels by position, ``[N, K, *S]`` a layer: the winner's colour, as strong as it is ahead."""
    from .studio import plt

    flat = eye[0].ndim == 1
    size = (1.3 * (len(maps) + 1) * (1.5 if flat else 1), (0.8 if flat else 1.35) * len(eye) + 0.4)
    figure, grid = plt.subplots(len(eye), len(maps) + 1, figsize=size, squeeze=False)
    for i, image in enumerate(eye):
        if flat:
            grid[i][0].plot(image, lw=1, color="#1a1f29")
            grid[i][0].margins(x=0)
        else:
            grid[i][0].imshow(image)
        for axes, values in zip(grid[i][1:], maps.values(), strict=True):
            painted = mixed(values[i])
            axes.imshow(painted[None] if flat else painted, aspect="auto" if flat else "equal", interpolation="nearest")
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0][0].set_title("input", fontsize=8)
    for axes, name in zip(grid[0][1:], maps, strict=True):
        axes.set_title(name.removeprefix("backbone."), fontsize=7)
    figure.tight_layout(pad=0.3)
    return figure


def mixed(weights: np.ndarray) -> np.ndarray:
    """Mixing weights ``[K, *S]`` that add up to one as colours ``[*S, 3]``; white where all are alike."""
    kernels = len(weights)
    palette = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    palette = palette[np.arange(kernels) % len(palette)]
    ahead = (weights.max(0) * kernels - 1) / max(1, kernels - 1)
    ahead = np.clip(ahead, 0, 1)[..., None] ** 0.5
    return 1 - ahead + ahead * palette[weights.argmax(0)]
