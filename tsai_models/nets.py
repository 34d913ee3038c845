"""Net1 and Net2: one or two convolutions, each followed by max pooling, then fully connected layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import dynconv_plugins as dc
from dynconv_plugins.convert import connect

from .options import refuse_head


class Lift(nn.Module):
    """Appends ``|x|`` and ``|x[t] - x[t-1]|`` to the channels: ``[B, C, L]`` to ``[B, 3C, L]``; no parameters.

    UCR series are z-normalised, so the mean over time that feeds a dynamic convolution's attention is zero for
    every one of them: on the raw series, attention could not depend on the input. The mean of ``|x|`` (peakedness) and
    of ``|dx|`` (roughness) do differ from series to series.
    """

    def forward(self, x: Tensor) -> Tensor:
        # The first step has no predecessor; repeating it keeps the length and gives it the difference zero.
        before = torch.cat([x[..., :1], x[..., :-1]], dim=-1)
        return torch.cat([x, x.abs(), (x - before).abs()], dim=1)


class Net1_CNN(nn.Module):
    """One convolution, max pooling, fully connected layers; the static twin of :class:`Net1_DCNN`.

    Maps ``[B, c_in, L]`` to logits ``[B, c_out]``. The length is free: the last pooling is adaptive, so `seq_len` is
    taken for tsai's sake only. The study gives no sizes but the dropout of 0.2 (its Table 1): the others are ours.

    Args:
        c_in: Variables of the series.
        c_out: Classes.
        seq_len: Unused; any length works.
        width: Filters of each convolution.
        kernel_size: Taps of each convolution.
        steps: Positions that the last max pooling leaves to the fully connected layers.
        hidden: Units of the hidden fully connected layer.
        dropout: Before each fully connected layer.
        operator: A name of the registry, for the dynamic nets; ``odconv`` there.
        operator_args: Arguments of the operator.
        **kwargs: The same, one by one, where the name is not one of those above.
    """

    depth = 1
    operator: str | None = None  # a name of the registry in the dynamic nets

    def __init__(
        self,
        c_in: int,
        c_out: int,
        seq_len: int | None = None,
        *,
        width: int = 32,
        kernel_size: int = 7,
        steps: int = 22,
        hidden: int = 256,
        dropout: float = 0.2,
        operator: str | None = None,
        operator_args: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__()
        layers: list[tuple[str, nn.Module]] = [("lift", Lift())]
        operator, channels = operator or type(self).operator, 3 * c_in
        options = {**kwargs, **(operator_args or {})}
        refuse_head(type(self).__name__, options)
        if operator is not None:
            dc.registry.get(operator).checked(options)
        for i in range(1, self.depth + 1):
            conv_args = (channels, width, kernel_size)
            if operator is None:
                conv = nn.Conv1d(*conv_args, padding=kernel_size // 2, **options)
            else:
                conv = dc.registry.build(operator, 1, *conv_args, padding=kernel_size // 2, **options)
            layers += [(f"conv{i}", conv), (f"act{i}", nn.ReLU()), (f"pool{i}", nn.MaxPool1d(2, ceil_mode=True))]
            channels = width
        self.backbone = nn.Sequential()
        for name, layer in layers:
            self.backbone.add_module(name, layer)
        self.head_nf, self.c_out, self.seq_len = channels, c_out, seq_len
        self.head = nn.Sequential(
            nn.AdaptiveMaxPool1d(steps),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels * steps, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, c_out),
        )
        connect(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class Net2_CNN(Net1_CNN):
    """As :class:`Net1_CNN`, with two convolutions; the static twin of :class:`Net2_DCNN`."""

    depth = 2


class Net1_DCNN(Net1_CNN):
    """One dynamic convolution, max pooling, fully connected layers.

    Kernels are meant to come from a trained :class:`Net1_CNN` and stay frozen, while attention and fully connected
    layers learn: :func:`tsai_models.pretrain` does all of it, :func:`tsai_models.from_static` the copying alone.
    The default, `odconv`, has one kernel: K frozen copies of it would mix to that kernel, whatever the mixture.
    Operators that do nothing but mix (`dyconv`, `a2d2c`, `a2d2cplus`, `localsoft`) so keep learning their kernels.

    Args: as :class:`Net1_CNN`; other arguments, such as ``num_kernels``, go to the operator.
    """

    operator = "odconv"


class Net2_DCNN(Net1_DCNN):
    """As :class:`Net1_DCNN`, with two dynamic convolutions."""

    depth = 2
