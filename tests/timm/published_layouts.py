"""Key names and shapes of the checkpoints that the authors of ODConv publish, filled with random values."""

from __future__ import annotations

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Expansion, channels at width 1, blocks: Sandler et al., CVPR 2018, table 2.
MOBILE_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


def norm(name: str, channels: int) -> Shapes:
    vectors = {f"{name}.{entry}": (channels,) for entry in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{name}.num_batches_tracked": ()}


def odconv(name: str, c_in: int, c_out: int, size: int, kernels: int, depthwise: bool = False) -> Shapes:
    width = max(c_in // 16, 16)
    shapes = {f"{name}.attention.fc.weight": (width, c_in, 1, 1), **norm(f"{name}.attention.bn", width)}
    rows = {
        "channel_fc": c_in,
        "filter_fc": 0 if depthwise else c_out,
        "spatial_fc": size**2 if size > 1 else 0,
        "kernel_fc": kernels if kernels > 1 else 0,
    }
    for head, count in rows.items():
        if count:
            shapes[f"{name}.attention.{head}.weight"] = (count, width, 1, 1)
            shapes[f"{name}.attention.{head}.bias"] = (count,)
    return shapes | {f"{name}.weight": (kernels, c_out, 1 if depthwise else c_in, size, size)}


def resnet(depth: int, kernels: int, classes: int = 1000) -> Shapes:
    shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    c_in, wide = 64, depth >= 50
    for stage, count in enumerate(DEPTHS[depth]):
        inner = 64 * 2**stage
        outer = inner * 4 if wide else inner
        for i in range(count):
            block = f"layer{stage + 1}.{i}"
            layers = (
                ((c_in, inner, 1), (inner, inner, 3), (inner, outer, 1))
                if wide
                else ((c_in, inner, 3), (inner, inner, 3))
            )
            for number, (before, after, size) in enumerate(layers, start=1):
                shapes |= odconv(f"{block}.conv{number}", before, after, size, kernels)
                shapes |= norm(f"{block}.bn{number}", after)
            if c_in != outer:
                shapes |= {f"{block}.downsample.0.weight": (outer, c_in, 1, 1), **norm(f"{block}.downsample.1", outer)}
            c_in = outer
    return shapes | {"fc.weight": (classes, c_in), "fc.bias": (classes,)}


def mobilenetv2(width: float, kernels: int, classes: int = 1000) -> Shapes:
    def rounded(channels: int) -> int:
        nearest = max(8, int(channels * width + 4) // 8 * 8)
        return nearest + 8 if nearest < 0.9 * channels * width else nearest

    c_in, number = rounded(32), 0
    shapes = {"features.0.0.weight": (c_in, 3, 3, 3), **norm("features.0.1", c_in)}
    for expansion, channels, count in MOBILE_STAGES:
        for _ in range(count):
            number += 1
            hidden, c_out = c_in * expansion, rounded(channels)
            at = f"features.{number}.conv"
            place = 0
            if expansion > 1:
                shapes |= odconv(f"{at}.0.0", c_in, hidden, 1, kernels) | norm(f"{at}.0.1", hidden)
                place = 1
            shapes |= odconv(f"{at}.{place}.0", hidden, hidden, 3, kernels, depthwise=True)
            shapes |= norm(f"{at}.{place}.1", hidden)
            shapes |= odconv(f"{at}.{place + 1}", hidden, c_out, 1, kernels) | norm(f"{at}.{place + 2}", c_out)
            c_in = c_out
    last = max(1280, rounded(1280))
    shapes |= odconv(f"features.{number + 1}.0", c_in, last, 1, kernels) | norm(f"features.{number + 1}.1", last)
    return shapes | {"classifier.1.weight": (classes, last), "classifier.1.bias": (classes,)}


def fill(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random values: variances positive, counters whole."""
    generator = torch.Generator().manual_seed(seed)

    def value(key: str, shape: tuple[int, ...]) -> Tensor:
        if key.endswith("num_batches_tracked"):
            return torch.randint(1, 100, shape, generator=generator)
        drawn = torch.randn(shape, generator=generator)
        return drawn.abs() + 0.5 if key.endswith("running_var") else drawn

    return {key: value(key, shape) for key, shape in shapes.items()}
