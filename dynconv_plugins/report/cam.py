"""Grad-CAM by the grad-cam package, for images, segmentation and series.

Source: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..convert import operators_in

SMALLEST = 4


class _Plain(nn.Module):
    """A network as the package takes it: series as images of height one, and one tensor as the output."""

    def __init__(self, network: nn.Module, flat: bool) -> None:
        super().__init__()
        self.network, self.flat = network, flat

    def forward(self, x: Tensor) -> Tensor:
        out = self.network(x.squeeze(2) if self.flat else x)
        return out[0] if isinstance(out, (tuple, list)) else out


def last_map(network: nn.Module, x: Tensor) -> str:
    """Name of the last module that puts out a map: of the backbone where there is one, for behind it come scores.

    Maps of fewer than four positions a side show nothing and are passed over while there is a larger one.

    Raises:
        ValueError: If no module puts out a map.
    """
    inside = tuple(f"{name}.attention." for name in operators_in(network))
    prefix = "backbone." if isinstance(getattr(network, "backbone", None), nn.Module) and x.ndim == 4 else ""
    seen: list[tuple[str, int]] = []

    def hook(name: str):
        def note(_module, _inputs, out) -> None:
            if isinstance(out, Tensor) and out.ndim == x.ndim and min(out.shape[2:]) > 1:
                seen.append((name, min(out.shape[2:])))

        return note

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in network.named_modules()
        if not any(module.children()) and name.startswith(prefix) and not name.startswith(inside)
    ]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ValueError("no layer puts out a map")
    large = [name for name, side in seen if side >= SMALLEST]
    return (large or [name for name, _ in seen])[-1]


def grad_cam(network: nn.Module, x: Tensor, layer: str) -> tuple[np.ndarray, int]:
    """What the prediction rests on: for the class predicted, in segmentation the largest but the background.

    Args:
        network: In eval mode.
        x: One input, ``[1, C, H, W]`` or ``[1, C, L]``.
        layer: As `last_map` gives it.

    Returns:
        ``[H, W]`` or ``[L]`` in 0..1, and the class.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SemanticSegmentationTarget

    flat = x.ndim == 3
    plain = _Plain(network, flat)
    # Gradients reach a layer behind frozen ones only if they are asked for at the input.
    given = (x.unsqueeze(2) if flat else x).clone().requires_grad_()
    with torch.no_grad():
        out = plain(given)
    if out.ndim == 4:
        labels = out[0].argmax(0)
        areas = torch.bincount(labels.flatten(), minlength=out.shape[1]).float()
        areas[0] *= 1e-6
        chosen = int(areas.argmax())
        target = SemanticSegmentationTarget(chosen, (labels == chosen).float().numpy())
    else:
        chosen = int(out[0].argmax())
        target = ClassifierOutputTarget(chosen)
    reshape = (lambda t: t.unsqueeze(2) if t.ndim == 3 else t) if flat else None
    with torch.enable_grad(), GradCAM(plain, [network.get_submodule(layer)], reshape) as cam:
        made = cam(input_tensor=given, targets=[target])[0]
    network.zero_grad(set_to_none=True)
    return (made[0] if flat else made), chosen


def resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map ``[H, W]`` or ``[L]`` at another size, linearly."""
    mode = "linear" if values.ndim == 1 else "bilinear"
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    return nn.functional.interpolate(tensor, shape, mode=mode, align_corners=False)[0, 0].numpy()
