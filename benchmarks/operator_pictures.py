"""What each operator's attention sees, drawn from the networks that `benchmarks.hosts` has trained on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
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


def maps(images: Sequence[np.ndarray], drawn: Sequence[np.ndarray], title: str, colours: str, top: float) -> Figure:
    """Images above, a map of each below."""
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(2, len(images), figsize=(2 * len(images), 4.2), squeeze=False)
        for (above, below), image, values in zip(axes.T, images, drawn, strict=True):
            above.imshow(image)
            last = below.imshow(values, cmap=colours, vmin=0, vmax=top, interpolation="nearest")
            for axis in (above, below):
                axis.set_xticks([])
                axis.set_yticks([])
        figure.colorbar(last, ax=axes, shrink=0.4, anchor=(0, 0.1), label=title)
        return figure


def places(model: nn.Module, x: Tensor, images: Sequence[np.ndarray], labels: Sequence[str]) -> Figure:
    """The weight of the kernel whose weight differs most from place to place, in an early layer."""
    few = firsts(labels)
    seen = recorded(model, x)
    name = next(iter(seen))
    weights = seen[name].kernel[few]
    kernel = int(weights.flatten(2).std(2).mean(0).argmax())
    drawn = weights[:, kernel].numpy()
    return maps([images[i] for i in few], drawn, f"weight of kernel {kernel + 1}, {name}", "viridis", drawn.max())


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
    return maps([images[i] for i in few], winner[:, filter_].numpy(), f"rotation that wins, {name}", "tab10", 9)


def points(model: nn.Module, x: Tensor, images: Sequence[np.ndarray], labels: Sequence[str]) -> Figure:
    """How often each position is sampled in eval mode."""
    few = firsts(labels)
    name, op = next(iter(dc.operators_in(model).items()))
    kept: list[Tensor] = []
    handle = op.register_forward_hook(lambda _m, _i, y: kept.append(y))
    with torch.inference_mode():
        model.eval()(x[few])
    handle.remove()
    size = kept[0].shape[2:]
    counts = torch.bincount((op.positions.flatten() * size.numel()).long(), minlength=size.numel())
    drawn = [counts.reshape(size).numpy()] * len(few)
    return maps([images[i] for i in few], drawn, f"times sampled, {name}", "magma", float(counts.max()))


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
