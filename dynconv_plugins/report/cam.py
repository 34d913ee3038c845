"""Class activation maps by the grad-cam package, for images, segmentation and series.

Grad-CAM weighs a channel with the mean of its gradients over the positions. That is right where everything behind the
layer treats positions alike, as global pooling does. Before ``Flatten`` and ``Linear`` the gradients of one channel
have either sign, their mean says nothing, and often nothing positive is left of the map. HiResCAM takes each gradient
where it is instead; where global pooling follows at once, the two are the same.

Sources: Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017;
Draelos and Carin, Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks,
arXiv:2011.08891.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..convert import operators_in

SMALLEST = 4
GRAD_CAM, HIRES_CAM = "Grad-CAM", "HiResCAM"


class _Plain(nn.Module):
    """A network as the package takes it: series as images of height one, one tensor as the output, and the last of a
    layer's calls as a module of its own, `tap`; the package would take the first."""

    def __init__(self, network: nn.Module, layer: str, flat: bool) -> None:
        super().__init__()
        self.network, self.layer, self.flat = network, network.get_submodule(layer), flat
        self.tap = nn.Identity()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """The output; the first time, the layer's calls are counted and nothing is tapped."""
        total, self.calls = self.calls, 0
        handle = self.layer.register_forward_hook(lambda _module, _inputs, out: self._tapped(out, total))
        try:
            return _one(self.network(x.squeeze(2) if self.flat else x))
        finally:
            handle.remove()

    def _tapped(self, out: Tensor, total: int) -> Tensor:
        self.calls += 1
        return self.tap(out) if self.calls == total else out


def _one(out) -> Tensor:
    return out[0] if isinstance(out, (tuple, list)) else out


@dataclass(frozen=True)
class _Call:
    """One call of a module without children: its name, and the sizes of what it took and put out."""

    name: str
    taken: torch.Size
    made: torch.Size


def _calls(network: nn.Module, x: Tensor) -> list[_Call]:
    """The calls in their order, without those within operators' attentions."""
    inside = tuple(f"{name}.attention." for name in operators_in(network))
    seen: list[_Call] = []

    def hook(name: str):
        def note(_module, inputs, out) -> None:
            if isinstance(out, Tensor):
                taken = inputs[0] if inputs and isinstance(inputs[0], Tensor) else out
                seen.append(_Call(name, taken.shape, out.shape))

        return note

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in network.named_modules()
        if not any(module.children()) and not name.startswith(inside)
    ]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def last_map(network: nn.Module, x: Tensor) -> str:
    """Name of the last module that puts out a map: of the backbone where there is one, for behind it come scores.

    Maps of fewer than four positions a side show nothing and are passed over while there is a larger one.

    Raises:
        ValueError: If no module puts out a map.
    """
    prefix = "backbone." if isinstance(getattr(network, "backbone", None), nn.Module) and x.ndim == 4 else ""
    sides = [
        (call.name, min(call.made[2:]))
        for call in _calls(network, x)
        if call.name.startswith(prefix) and len(call.made) == x.ndim and min(call.made[2:]) > 1
    ]
    if not sides:
        raise ValueError("no layer puts out a map")
    large = [name for name, side in sides if side >= SMALLEST]
    return (large or [name for name, _ in sides])[-1]


def suited(network: nn.Module, x: Tensor, layer: str) -> str:
    """Which map is right at a layer: `GRAD_CAM` where something pools all positions behind it, else `HIRES_CAM`.

    In segmentation the target does so itself: it is a sum over the positions of the class.

    Args:
        network: In eval mode.
        x: One input, ``[1, C, H, W]`` or ``[1, C, L]``.
        layer: As `last_map` gives it.
    """
    with torch.no_grad():
        if _one(network(x)).ndim == 4:
            return GRAD_CAM
    calls = _calls(network, x)
    behind = calls[1 + max(i for i, call in enumerate(calls) if call.name == layer) :]
    pools = any(
        len(call.taken) == x.ndim and min(call.taken[2:]) > 1 and call.made.numel() == call.taken[:2].numel()
        for call in behind
    )
    return GRAD_CAM if pools else HIRES_CAM


def grad_cam(network: nn.Module, x: Tensor, layer: str, method: str) -> tuple[np.ndarray, int]:
    """What the prediction rests on: for the class predicted, in segmentation the largest but the background, and the
    background where there is nothing else.

    Args:
        network: In eval mode.
        x: One input, ``[1, C, H, W]`` or ``[1, C, L]``.
        layer: As `last_map` gives it.
        method: As `suited` gives it.

    Returns:
        ``[H, W]`` or ``[L]`` in 0..1, all zero where nothing speaks for the class, and the class.
    """
    from pytorch_grad_cam import GradCAM, HiResCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SemanticSegmentationTarget

    flat = x.ndim == 3
    plain = _Plain(network, layer, flat)
    # Gradients reach a layer behind frozen ones only if they are asked for at the input.
    given = (x.unsqueeze(2) if flat else x).clone().requires_grad_()
    with torch.no_grad():
        out = plain(given)
    if out.ndim == 4:
        labels = out[0].argmax(0)
        areas = torch.bincount(labels.flatten(), minlength=out.shape[1]).float()
        chosen = 1 + int(areas[1:].argmax()) if areas[1:].any() else 0
        target = SemanticSegmentationTarget(chosen, (labels == chosen).float().numpy())
    else:
        chosen = int(out[0].argmax())
        target = ClassifierOutputTarget(chosen)
    reshape = (lambda t: t.unsqueeze(2) if t.ndim == 3 else t) if flat else None
    make = {GRAD_CAM: GradCAM, HIRES_CAM: HiResCAM}[method]
    with torch.enable_grad(), make(plain, [plain.tap], reshape) as cam:
        made = cam(input_tensor=given, targets=[target])[0]
    network.zero_grad(set_to_none=True)
    return (made[0] if flat else made), chosen


def resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map ``[H, W]`` or ``[L]`` at another size, linearly."""
    mode = "linear" if values.ndim == 1 else "bilinear"
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    return nn.functional.interpolate(tensor, shape, mode=mode, align_corners=False)[0, 0].numpy()
