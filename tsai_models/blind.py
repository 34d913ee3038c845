"""Convolutions whose attention would see the same of every series."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from dynconv_plugins.placement import convolutions


@torch.no_grad()
def blind(model: nn.Module, c_in: int, seq_len: int | None = None) -> set[str]:
    """Finds them by a forward pass of two random series.

    Attention is computed from the mean over time, which is zero for a z-normalised series, and is one constant after
    layers that are linear in it (a bottleneck).

    Args:
        model: A static network, left as it is.
        c_in: Variables of the series.
        seq_len: Their length; 64 if it does not matter.

    Returns:
        Names of convolutions; none of a network that takes anything but series ``[B, c_in, seq_len]``.
    """
    means: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def note(name: str, _module: nn.Module, inputs: tuple) -> None:
        flat = inputs[0].flatten(2)
        means.setdefault(name, []).append((flat.mean(2), flat.std()))

    modes = [(module, module.training) for module in model.modules()]
    handles = [conv.register_forward_pre_hook(partial(note, name)) for name, conv in convolutions(model).items()]
    try:
        generator = torch.Generator("cpu").manual_seed(0)
        x = torch.randn(2, c_in, seq_len or 64, generator=generator, device="cpu").to(next(model.parameters()))
        model.eval()((x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True))
    except Exception:  # whatever an architecture of other inputs makes of it
        return set()
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return {name for name, seen in means.items() if all((m[0] - m[1]).abs().max() <= 1e-3 * s for m, s in seen)}
