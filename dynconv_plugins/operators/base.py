"""What every dynamic convolution has in common: ``nn.ConvNd``'s constructor, padding, and one call of the engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..functional import Attention, dynamic_conv
from ..problem import ntuple

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
STATIC = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(weight: Tensor) -> torch.memory_format:
    """How a weight of a convolution lies in memory; one that lies in both ways at once (1x1) counts as contiguous."""
    last = _CHANNELS_LAST.get(weight.dim())
    if last is None or weight.is_contiguous() or not weight.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last


class DynamicConv(nn.Module):
    """A drop-in for ``nn.ConvNd`` whose kernels depend on the input.

    A subclass sets `dims` in its 1d, 2d and 3d variants and assigns `self.attention`, a module that turns
    ``[B, C_in, *S]`` into an `Attention`; one whose kernels are made from the stored ones overrides `kernels`. It is
    deliberately not an ``nn.ConvNd``: hosts re-initialise those.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``, ``padding='same'`` and ``'valid'`` included.
        num_kernels: How many kernels K are mixed.

    Attributes:
        weight: The K kernels under each other, ``[K * C_out, C_in / groups, *kernel_size]``. With K = 1 this is
            ``nn.ConvNd``'s own weight; with more it stays of a rank that ``model.to(memory_format=...)`` converts.
        combine: How the outputs of the K kernels become one, see `dynamic_conv`.
        preserves_static: Whether `load_static` makes the operator compute what the static convolution does.
        attention_loaded: Whether a state dict has given the attention its values.

    Raises:
        ValueError: As ``nn.ConvNd`` does.
    """

    dims: int
    transposed = False
    combine = "sum"
    preserves_static = True
    attention_loaded = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device=None,
        dtype=None,
        *,
        num_kernels: int = 1,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{groups=} must divide in_channels={in_channels} and out_channels={out_channels}")
        if num_kernels < 1:
            raise ValueError(f"num_kernels must be at least 1, got {num_kernels}")
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {', '.join(PADDING_MODES)}, got '{padding_mode}'")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = ntuple(kernel_size, self.dims, "kernel_size")
        self.stride = ntuple(stride, self.dims, "stride")
        self.dilation = ntuple(dilation, self.dims, "dilation")
        self.padding = padding if isinstance(padding, str) else ntuple(padding, self.dims, "padding")
        self.output_padding = (0,) * self.dims
        self.padding_mode, self.num_kernels = padding_mode, num_kernels
        self._padding_sides()  # refuses what does not fit
        shape = (num_kernels * out_channels, in_channels // groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal with one kernel's own fan-out, zero bias (ODConv, section 4.1)."""
        fan_out = self.out_channels * math.prod(self.kernel_size) / self.groups
        nn.init.normal_(self.weight, 0.0, math.sqrt(2.0 / fan_out))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def stacked(self) -> Tensor:
        """The stored kernels, a view ``[K, C_out, C_in / groups, *kernel_size]`` of `weight`."""
        return self.weight.unflatten(0, (self.num_kernels, self.out_channels))

    @property
    def kernels(self) -> Tensor:
        """The kernels that the engine executes, ``[K, C_out, C_in / groups, *kernel_size]``."""
        return self.stacked

    @classmethod
    def options_in(cls, block: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Arguments that the paper makes depend on the block a convolution stands in; `dynamize` asks for them.

        Args:
            block: The static convolutions of the block by name, shortcuts left out.
        """
        return {}

    @classmethod
    def connect(cls, model: nn.Module) -> None:
        """Lets this operator's layers in a finished model know of each other, where the paper has them do so.

        `dynamize` calls it through `convert.connect`, see there.
        """

    def set_temperature(self, temperature: float) -> None:
        """Sets the temperature of the attention, where it has one."""
        if hasattr(self.attention, "temperature"):
            self.attention.temperature.fill_(temperature)

    @torch.no_grad()
    def load_static(self, conv: nn.Module) -> None:
        """Takes over the weights of a static convolution of the same geometry, and computes the same at first.

        Every kernel becomes `conv`'s, divided by what the freshly neutralised attention multiplies it by.
        """
        gain = self.attention.neutralise()
        self.stacked.copy_((conv.weight / gain).expand_as(self.stacked))
        if self.bias is not None:
            self.bias.copy_(conv.bias)

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ) -> None:
        # Hosts take a name with "head" in it for the classifier's; ours were called so once.
        earlier = tuple(f"{prefix}attention.{name}." for name in ("head", "heads"))
        for key in [key for key in state_dict if key.startswith(earlier)]:
            state_dict[f"{prefix}attention.logits.{key.rpartition('.')[2]}"] = state_dict.pop(key)
        self.attention_loaded |= any(key.startswith(f"{prefix}attention.") for key in state_dict)
        args = (state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        super()._load_from_state_dict(*args)
        # The counter of `anneal`, in any module around this one, is a place in a schedule and no weight: what uses a
        # trained model need not know of it.
        ends = [0, *(i + 1 for i, letter in enumerate(prefix) if letter == ".")]
        counters = {f"{prefix[:end]}annealing_step" for end in ends}
        unexpected_keys[:] = [key for key in unexpected_keys if key not in counters]

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C_in, *S]`` to ``[B, C_out, *S_out]``; without the batch dimension as well, as ``nn.ConvNd``."""
        if isinstance(x, fx.Proxy):
            # It has no shape to look at: to a tracer an operator is one node, as torch's convolutions are.
            return x.tracer.create_proxy("call_module", x.tracer.path_of_module(self), (x,), {})
        if x.dim() == self.dims + 1:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        if x.dim() != self.dims + 2 or x.shape[1] != self.in_channels:
            sizes = f"[B, {self.in_channels}, {', '.join('DHW'[3 - self.dims :])}]"
            raise ValueError(f"expected an input {sizes}, with or without B, got {list(x.shape)}")
        return self.convolve(x, self.attend(x))

    def attend(self, x: Tensor) -> Attention:
        """The attention for ``[B, C_in, *S]``."""
        return self.attention(x)

    def convolve(self, x: Tensor, attention: Attention, kernels: Tensor | None = None) -> Tensor:
        """The convolution with the attention given: padding, then the engine; by `self.kernels` unless others are."""
        x, padding = self.pad(x)
        return dynamic_conv(
            x,
            self.kernels if kernels is None else kernels,
            attention,
            bias=self.bias,
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
            combine=self.combine,
        )

    def frozen(self, attention: Attention) -> nn.Module | None:
        """The static module that computes what this one does, in eval mode, while its attention is `attention`.

        An operator with a `convolve` of its own overrides this, unless its convolution is the engine's equation.

        Args:
            attention: The factors of one sample, with a batch dimension of one and none per position.

        Returns:
            An ``nn.ConvNd`` where there is one; ``None`` where no static kernel computes the same.
        """
        kernels = self.kernels.detach()
        if len(kernels) > 1 and self.combine != "sum":
            return None
        a, s, c, f = (None if factor is None else factor[0].to(kernels) for factor in attention)
        weight = kernels.sum(0) if a is None else torch.tensordot(a, kernels, 1)
        one = (1,) * self.dims
        if s is not None:
            weight = weight * s
        if c is not None:  # each group of filters has its own input channels
            c = c.reshape(self.groups, 1, -1, *one)
            weight = (weight.unflatten(0, (self.groups, -1)) * c).flatten(0, 1)
        if f is not None:
            weight = weight * f.reshape(-1, 1, *one)
        return self.static(weight, self.bias)

    def static(self, weight: Tensor, bias: Tensor | None, groups: int | None = None) -> nn.Module:
        """torch's convolution of this geometry with copies of `weight` and `bias`; `groups` where they are not ours.

        The copy lies in memory as our own weight does, whatever made `weight` of it.
        """
        groups = self.groups if groups is None else groups
        geometry = (self.kernel_size, self.stride, self.padding, self.dilation, groups, bias is not None)
        conv = STATIC[self.dims](weight.shape[1] * groups, len(weight), *geometry, self.padding_mode, device="meta")
        # Built without memory and then given its values: no random initialisation is drawn for nothing.
        conv.weight = nn.Parameter(
            weight.detach().clone(memory_format=memory_format(self.weight)), self.weight.requires_grad
        )
        if bias is not None:
            conv.bias = nn.Parameter(bias.detach().clone(), self.weight.requires_grad)
        return conv.train(self.training)

    def pad(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Pads where the engine cannot (modes but zeros, uneven sides), and returns what is left for the engine."""
        pairs = self._padding_sides()
        if self.padding_mode == "zeros" and all(before == after for before, after in pairs):
            return x, tuple(before for before, _ in pairs)
        sides = [side for pair in reversed(pairs) for side in pair]
        x = F.pad(x, sides, mode="constant" if self.padding_mode == "zeros" else self.padding_mode)
        return x, (0,) * self.dims

    def _padding_sides(self) -> tuple[tuple[int, int], ...]:
        """Padding before and after each dimension; an even kernel under ``'same'`` gets one more after."""
        if not isinstance(self.padding, str):
            return tuple((p, p) for p in self.padding)
        if self.padding == "valid":
            return ((0, 0),) * self.dims
        if self.padding != "same":
            raise ValueError(f"padding must be 'same', 'valid' or integers, got '{self.padding}'")
        if any(s != 1 for s in self.stride):
            raise ValueError("padding='same' is not supported for strided convolutions")
        totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, default in (("padding", (0,) * self.dims), ("dilation", (1,) * self.dims), ("groups", 1)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text + f", bias={self.bias is not None}, num_kernels={self.num_kernels}"
