"""What each operator's attention sees, drawn from the networks that `benchmarks.hosts` has trained on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

import dynconv_plugins as dc
from dynconv_plugins.demo.attention import recorded
from dynconv_plugins.demo.figures import STYLE, gates, spatial_maps
from dynconv_plugins.operators.orconv import ORConv2d

SHOWN = 4


def three(layers: Sequence[str]) -> list[str]:
    """An early, a middle and a late one."""
    return [layers[0], layers[len(layers) // 2], layers[-1]]


def factors(attribute: str, axis: str) -> Callable[..., Figure]:
    """Rows of samples by columns of what an attention factor multiplies, in three layers."""

    def draw(model: nn.Module, x: Tensor, images: Sequence[np.ndarray], labels: Sequence[str]) -> Figure:
        seen = recorded(model, x)
        return gates({name: getattr(seen[name], attribute).numpy() for name in three(list(seen))}, labels, axis)

    return draw


def firsts(labels: Sequence[str]) -> list[int]:
    """One sample of each class."""
    return [i for i, label in enumerate(labels) if label not in labels[:i]][:SHOWN]


def taps(model: nn.Module, x: Tensor, images: Sequence[np.ndarray], labels: Sequence[str]) -> Figure:
    """The spatial attention of the layers that have one."""
    seen = {k: v.spatial for k, v in recorded(model, x).items() if v.spatial is not None}
    few = firsts(labels)
    return spatial_maps([images[i] for i in few], {k: seen[k][few].numpy() for k in three(list(seen))})


def maps(
    images: Sequence[np.ndarray], drawn: Sequence[np.ndarray], title: str, colours: str | ListedColormap
) -> Figure:
    """Images above, below a map of each, or what is given as pixels.

    Args:
        images: ``[H, W, 3]`` in 0..1.
        drawn: Maps ``[h, w]``, or pixels ``[h, w, 3]``, which have no scale.
        title: What the maps show.
        colours: The maps' colours; a list is for whole numbers from 0.
    """
    top = len(colours.colors) - 0.5 if isinstance(colours, ListedColormap) else max(values.max() for values in drawn)
    bottom = -0.5 if isinstance(colours, ListedColormap) else 0
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(2, len(images), figsize=(2 * len(images), 4.2), squeeze=False)
        for (above, below), image, values in zip(axes.T, images, drawn, strict=True):
            above.imshow(image)
            last = below.imshow(values, cmap=colours, vmin=bottom, vmax=top, interpolation="nearest")
            for axis in (above, below):
                axis.set_xticks([])
                axis.set_yticks([])
        if drawn[0].ndim == 2:
            bar = figure.colorbar(last, ax=axes, shrink=0.42, anchor=(0, 0.08))
            if isinstance(colours, ListedColormap):
                bar.set_ticks(range(len(colours.colors)))
                bar.set_ticklabels([f"{360 * i // len(colours.colors)} degrees" for i in range(len(colours.colors))])
        figure.text(0.5, 0.04, title, ha="center")
        return figure


def places(model: nn.Module, x: Tensor, images: Sequence[np.ndarray], labels: Sequence[str]) -> Figure:
    """The weight of the kernel whose weight differs most from place to place, in an early layer."""
    few = firsts(labels)
    seen = recorded(model, x)
    name = next(iter(seen))
    weights = seen[name].kernel[few]
    kernel = int(weights.flatten(2).std(2).mean(0).argmax())
    drawn = weights[:, kernel].numpy()
    return maps([images[i] for i in few], drawn, f"weight of kernel {kernel + 1}, {name}", "viridis")


def rotations(model: nn.Module, x: Tensor, images: Sequence[np.ndarray], labels: Sequence[str]) -> Figure:
    """The rotation that wins, for the filter that is most undecided."""
    few = firsts(labels)
    name, op = next((n, m) for n, m in model.named_modules() if isinstance(m, ORConv2d))
    kept: list[Tensor] = []
    handle = op.register_forward_hook(lambda _m, inputs, _y: kept.append(inputs[0]))
    with torch.inference_mode():
        model.eval()(x[few])
        handle.remove()
        each = torch.stack(
            [nn.functional.conv2d(kept[0], w, None, op.stride, op.padding, op.dilation, op.groups) for w in op.kernels]
        )
    winner = each.argmax(0)
    spread = torch.stack([(winner == r).float().mean((0, 2, 3)) for r in range(op.rotations)])
    filter_ = int(spread.max(0).values.argmin())
    colours = ListedColormap(plt.get_cmap("tab10").colors[: op.rotations])
    return maps([images[i] for i in few], winner[:, filter_].numpy(), f"rotation that wins, {name}", colours)


def points(model: nn.Module, x: Tensor, images: Sequence[np.ndarray], labels: Sequence[str]) -> Figure:
    """The positions that are sampled in eval mode, on the images."""
    few = firsts(labels)
    name, op = next(iter(dc.operators_in(model).items()))
    kept: list[Tensor] = []
    handle = op.register_forward_hook(lambda _m, _i, y: kept.append(y))
    with torch.inference_mode():
        model.eval()(x[few])
    handle.remove()
    size = kept[0].shape[2:]
    at = (op.positions.flatten() * size.numel()).long()
    seen = torch.zeros(size.numel()).index_fill(0, at, 1.0).reshape(size).numpy()
    drawn = []
    for image in (images[i] for i in few):
        times = [pixels // cells for pixels, cells in zip(image.shape, size, strict=False)]
        mask = seen.repeat(times[0], 0).repeat(times[1], 1)[..., None]
        drawn.append(image * (0.2 + 0.8 * mask))
    return maps([images[i] for i in few], drawn, f"sampled positions, {name}", "viridis")


KERNELS = factors("kernel", "kernels")
DRAW: dict[str, Callable[..., Figure]] = {
    "condconv": KERNELS,
    "dyconv": KERNELS,
    "dcd": factors("output", "filters"),
    "odconv": taps,
    "odconv4x": KERNELS,
    "a2d2c": points,
    "a2d2cplus": KERNELS,
    "globalsoft": factors("input", "input channels"),
    "localsoft": places,
    "hard": factors("output", "filters"),
    "orconv": rotations,
    "fdconv": KERNELS,
}


def save(figure: Figure, path: Path) -> None:
    """As PNG, small enough for a repository."""
    figure.savefig(path, dpi=80, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
