"""Attention pictures of a trained network: what the kernels look like to different inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.demo.figures import Album, gates, spatial_maps
from dynconv_plugins.demo.records import OPERATORS

CLASSES, PER_CLASS, SHOWN = 5, 6, 4
KINDS = (
    ("kernel", "Kernel gates", "kernels", "Weights of the kernels that are mixed."),
    ("input", "Channel gates", "input channels", "Factors of the input channels."),
    ("output", "Filter gates", "filters", "Factors of the filters, that is of the output channels."),
)


def by_class(labels: Sequence[str], classes: int = CLASSES, per_class: int = PER_CLASS) -> tuple[list[int], list[str]]:
    """Picks the first samples of the first classes, sorted by class: indices and their labels."""
    chosen: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        chosen.setdefault(str(label), []).append(i)
    names = sorted(chosen, key=lambda name: (len(name), name))[:classes]
    indices = [i for name in names for i in chosen[name][:per_class]]
    return indices, [str(labels[i]) for i in indices]


@torch.inference_mode()
def recorded(model: nn.Module, x: torch.Tensor) -> dict[str, dc.Attention]:
    """Attention of every dynamic layer for a batch, in the order of execution."""
    model.eval()
    with dc.record_attention(model) as seen:
        model(x)
    return {name: calls[0] for name, calls in seen.items()}


def pictures(
    model: nn.Module,
    operator: str,
    x: torch.Tensor,
    inputs: Sequence[np.ndarray],
    labels: Sequence[str],
    album: Album,
    name: str,
) -> list[dict[str, Any]]:
    """Draws everything that the layers attend with.

    Args:
        model: A trained network with dynamic operators.
        operator: A key of `OPERATORS`.
        x: Inputs as the network takes them, sorted by class.
        inputs: The same for the eye: images ``[H, W, 3]`` in 0..1 or series ``[L]``.
        labels: Their classes.
        album: Where pictures are kept.
        name: Start of their file names.

    Returns:
        ``title``, ``src``, ``caption`` and ``wide`` of each.
    """
    seen = recorded(model, x)
    title, made = OPERATORS[operator], []
    few = _one_of_each(labels)
    spatial = {k: v.spatial[few].numpy() for k, v in seen.items() if v.spatial is not None}
    if spatial:
        what = "taps" if inputs[0].ndim == 1 else "positions of the kernel"
        made.append(
            {
                "title": f"{title}: spatial attention",
                "src": album.add(f"{name}-{operator}-spatial", spatial_maps([inputs[i] for i in few], spatial)),
                "caption": f"One row per input, one column per layer from first to last: the factors of the {what}. "
                "Colours mean the same in the whole picture. Rows that look alike: the layer does not tell these "
                "inputs apart.",
                "wide": len(spatial) > 5,
            }
        )
    for attribute, kind, axis, caption in KINDS:
        layers = {k: getattr(v, attribute).numpy() for k, v in seen.items() if getattr(v, attribute) is not None}
        if layers:
            drawn = gates(_three(layers), labels, axis)
            made.append(
                {
                    "title": f"{title}: {kind.lower()}",
                    "src": album.add(f"{name}-{operator}-{attribute}", drawn),
                    "caption": f"{caption} Samples down, grouped by class; layers side by side, from early to late. "
                    "Vertical stripes are what all inputs share, changes down a column are what depends on the input.",
                    "wide": len(layers) > 2,
                }
            )
    return made


def _one_of_each(labels: Sequence[str]) -> list[int]:
    firsts = [i for i, label in enumerate(labels) if label not in labels[:i]]
    return (firsts + [i for i in range(len(labels)) if i not in firsts])[:SHOWN]


def _three(layers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = list(layers)
    return {n: layers[n] for n in dict.fromkeys((names[0], names[len(names) // 2], names[-1]))}
