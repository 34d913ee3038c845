"""Layers as JSON and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from .layers import Layer

_FACTORS = ("kernel", "spatial", "input", "output", "mixing", "mask")


def as_json(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Every number; of weights by position also the mean of each kernel and where each is first."""
    return [_one(layer) for layer in layers]


def _one(layer: Layer) -> dict[str, Any]:
    made: dict[str, Any] = {"layer": layer.name, "operator": layer.operator, "calls": layer.calls}
    made |= {key: value if len(value) > 1 or "size" in key else value[0] for key, value in layer.sizes.items()}
    factors: dict[str, Any] = {}
    for name in _FACTORS:
        values = getattr(layer, name)
        if values is None:
            continue
        factors[name] = {"shape": list(values.shape), **_statistics(values), "values": _rounded(values)}
    if layer.kernel is not None:
        best = int(layer.kernel.argmax())
        factors["kernel"] |= {"labels": layer.labels, "entropy": layer.entropy, "strongest": layer.labels[best]}
    if layer.kernel_map is not None:
        first = layer.kernel_map.argmax(0)
        shares = [float((first == k).mean()) for k in range(len(layer.kernel_map))]
        values = _rounded(layer.kernel_map)
        factors["kernel"] |= {
            "by_position": {"shape": list(layer.kernel_map.shape), "first_at": shares, "values": values}
        }
    return {**made, "factors": factors}


def _statistics(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "min": float(values.min()),
        "max": float(values.max()),
        "below_half": float((values < 0.5).mean()),
    }


def _rounded(values: np.ndarray) -> list:
    return np.round(values.astype(float), 5).tolist()


def table(layers: Sequence[Layer]) -> tuple[Table, str]:
    """A row a layer, and a column for each kind of factor that occurs; and how to read it."""
    made = Table(header_style="bold", padding=(0, 1))
    made.add_column("layer", overflow="fold")
    made.add_column("operator")
    mixes = any(layer.kernel is not None for layer in layers)
    kinds = list(dict.fromkeys(kind for layer in layers for kind in layer.gates))
    if mixes:
        made.add_column("strongest kernel")
        made.add_column("entropy", justify="right")
    for kind in kinds:
        made.add_column(kind)
    if any(layer.mixing is not None for layer in layers):
        made.add_column("latent mixing")
    for layer in layers:
        cells = [layer.name, layer.operator]
        if mixes:
            cells += [_strongest(layer), "" if layer.entropy is None else f"{layer.entropy:.2f}"]
        cells += [_gate(layer.gates.get(kind)) for kind in kinds]
        if layer.mixing is not None:
            cells.append(f"{len(layer.mixing)}x{len(layer.mixing)}, |mean| {abs(layer.mixing).mean():.2g}")
        made.add_row(*cells)
    said = ["entropy: of the kernel mix, 1 is all kernels alike"] if mixes else []
    if any(layer.kernel_map is not None for layer in layers):
        said.append("kernels differ by position: means")
    if kinds:
        said.append("gates: mean (least-most), part below one half; of zeros and ones, how many are on")
    return made, "; ".join(said)


def _strongest(layer: Layer) -> str:
    if layer.kernel is None:
        return ""
    best = int(layer.kernel.argmax())
    return f"{layer.labels[best].removeprefix('kernel ')} of {len(layer.kernel)}: {layer.kernel[best]:.2f}"


def _gate(values: np.ndarray | None) -> str:
    if values is None:
        return ""
    if set(np.unique(values)) <= {0.0, 1.0}:
        return f"{int(values.sum())} of {values.size} on"
    return f"{values.mean():.2f} ({values.min():.2f}-{values.max():.2f}) {(values < 0.5).mean():.0%}"
