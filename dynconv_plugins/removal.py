"""The removal of the filters that the one layer which reads them can do without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .operators.base import memory_format

_Norm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Chain:
    """A dense convolution, layers that keep channels apart, and the one layer that reads the result.

    Attributes:
        producer: The convolution.
        between: Batch norms, depthwise convolutions, and functions applied to every value.
        consumer: A dense convolution, or a linear layer after flattening.
    """

    producer: nn.Module
    between: tuple[nn.Module | Callable[[Tensor], Tensor], ...]
    consumer: nn.Module

    @torch.no_grad()
    def shrink(self) -> bool:
        """Removes the channels that the consumer can do without, in place and exactly; whether there were any.

        These are channels that it does not read, and channels that are constant, because their filter is zero: by a
        constant of zero nothing is lost; other constants go into the consumer's bias, or, if it pads with zeros, so
        that they are constant in the middle only, into one channel that stands for all of them.
        """
        constant, value = self._constants()
        weight = self.consumer.weight.double().clone()
        weight = weight.reshape(len(weight), len(value), -1)  # [outputs, channels, what else is read of each]
        gone = ~(weight != 0).any(2).any(0) | (constant & (value == 0))
        others = constant & ~gone
        if _pads_zeros(self.consumer):
            # The one whose constant is the largest: the quotients stay small.
            chosen = torch.where(others, value.abs(), -1.0).argmax()
            if others.any():
                weight[:, chosen] = torch.einsum("oct,c->ot", weight[:, others], value[others] / value[chosen])
                others[chosen] = False
        elif others.any():
            # Not to be read again: where a single channel has to stay, nothing below takes it away.
            self._write(weight * ~others[:, None])
            bias = self.consumer.bias
            shift = weight[:, others].sum(2) @ value[others]
            shift = shift if bias is None else shift + bias
            self.consumer.bias = nn.Parameter(shift.to(self.consumer.weight), self.consumer.weight.requires_grad)
        gone |= others
        weight[:, gone] = 0  # said already, or nothing: also of the one channel that has to stay where none is needed
        gone[0] &= not gone.all()
        if not gone.any():
            return False
        self._keep(~gone, weight)
        return True

    def _constants(self) -> tuple[Tensor, Tensor]:
        """Which channels are constant at the consumer, over positions and samples, and their values in float64."""
        constant = ~(self.producer.weight != 0).flatten(1).any(1)
        value = _bias(self.producer)
        for step in self.between:
            if _is_conv(step):
                weight = step.weight.double().flatten(1)
                unread = ~(weight != 0).any(1)
                border = _pads_zeros(step) & (value != 0)
                value = torch.where(unread, 0.0, value * weight.sum(1)) + _bias(step)
                constant = unread | (constant & ~border)
            else:
                dtype = step.running_mean.dtype if isinstance(step, _Norm) else value.dtype
                shape = (1, -1, *(1,) * (self.producer.weight.dim() - 2))
                value = step(value.to(dtype).reshape(shape)).flatten().double()
        return constant, value

    def _keep(self, keep: Tensor, weight: Tensor) -> None:
        """Keeps some of the channels; `weight` is the consumer's new one, ``[outputs, channels, rest]``."""
        n = int(keep.sum())
        _index(self.producer, keep)
        self.producer.out_channels = n
        for step in self.between:
            if _is_conv(step):
                _index(step, keep)
                step.in_channels = step.out_channels = step.groups = n
            elif isinstance(step, _Norm):
                _index(step, keep)
                step.num_features = n
        new = self._write(weight[:, keep])
        setattr(self.consumer, "in_channels" if _is_conv(self.consumer) else "in_features", new.shape[1])

    def _write(self, weight: Tensor) -> Tensor:
        """Makes `weight`, ``[outputs, channels, rest]``, the consumer's, and returns it in its shape."""
        old = self.consumer.weight
        rest = old.shape[2:] if _is_conv(self.consumer) else ()
        weight = weight.to(old).reshape(len(old), -1, *rest).contiguous(memory_format=memory_format(old))
        self.consumer.weight = nn.Parameter(weight, old.requires_grad)
        return self.consumer.weight


def _is_conv(module: object) -> bool:
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _bias(conv: nn.Module) -> Tensor:
    """The bias in float64, zeros without one."""
    bias = conv.weight.new_zeros(len(conv.weight)) if conv.bias is None else conv.bias
    return bias.double().clone()  # activations may work in place


def _pads_zeros(module: nn.Module) -> bool:
    """Whether it sees a constant map as one with a border of zeros."""
    return _is_conv(module) and module.padding_mode == "zeros" and any(module._reversed_padding_repeated_twice)


def _index(module: nn.Module, keep: Tensor) -> None:
    """Keeps some entries of each of the module's own parameters and buffers that have one per channel."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            kept = parameter.detach()[keep].contiguous(memory_format=memory_format(parameter))
            module._parameters[name] = nn.Parameter(kept, parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.dim():
            module._buffers[name] = buffer[keep]
