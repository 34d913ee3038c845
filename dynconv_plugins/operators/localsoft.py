"""Local soft attention: kernels mixed at each position, from a representation carried from layer to layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..functional import Attention
from .base import DynamicConv
from .carry import Carrier
from .heads import Tempered, pooled

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class LocalSoftAttention(Tempered):
    """One softmax over the kernels for each output position.

    The kernel representation takes over from the layer before, gated by the pooled input::

        u    = sigmoid(U [GAP x; KR_before] + b)
        KR   = (1 - u) KR_before + u tanh(V GAP x + state)

    A layer with none before it starts from ``KR_before = state``. The generator turns the representation and a 1x1
    map m of the input, averaged over the receptive field of each output position, into the weights::

        a[k, position] = softmax_k((G KR + g + mean(m over the receptive field))[k] / T)

    The representation is carried by a `Carrier`, see there what counts as the layer before; `carrier` is absent until
    the model is connected.

    Args:
        conv: The convolution the attention is for.
        width: Values in the kernel representation.
        temperature: T, divides the logits.

    Source: Bhati and Sherawat, "Comprehensive Study Dynamic CNN", section 2.1.2. It names the ingredients (pooled
    features, the previous layers' representation, learnable parameters, a generator, weights per pixel), no formulas;
    the text and the code of what it follows (Zhou and Ng, BMVC 2024) are not available. These formulas are our reading.
    """

    def __init__(self, conv: DynamicConv, width: int = 32, temperature: float = 1.0) -> None:
        super().__init__(temperature, conv.weight.device)
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        options = {"device": conv.weight.device, "dtype": conv.weight.dtype}
        self.carrier: Carrier | None = None
        self.index = 0
        self.gate = nn.Linear(conv.in_channels + width, width, **options)
        self.proposal = nn.Linear(conv.in_channels, width, bias=False, **options)
        self.state = nn.Parameter(torch.empty(width, **options))
        self.generator = nn.Linear(width, conv.num_kernels, **options)
        # A linear layer, not a 1x1 convolution: that would itself be found and made dynamic.
        self.local = nn.Linear(conv.in_channels, conv.num_kernels, bias=False, **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform, zero biases and state."""
        for layer in (self.gate, self.proposal, self.generator, self.local):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.state)

    def neutralise(self) -> float:
        """Nothing to do: K equal kernels mix to themselves under any softmax.

        The weights keep their random start, because only different ones give the kernels different gradients.
        """
        return 1.0

    def forward(self, x: Tensor, averaged: Callable[[Tensor], Tensor]) -> Attention:
        """``[B, C_in, *S]`` to the kernel attention ``[B, K, *S_out]``; `averaged` is the operator's."""
        representation = self.represent(pooled(x))
        ones = (1,) * (x.dim() - 2)
        local = self.local(x.flatten(2).mT).mT.unflatten(2, x.shape[2:])
        logits = self.generator(representation)
        logits = logits.reshape(*logits.shape, *ones) + averaged(local)
        return Attention(kernel=self.cooled(logits).softmax(1))

    def represent(self, descriptor: Tensor) -> Tensor:
        """The kernel representation ``[B, width]`` from the pooled input ``[B, C_in]``, taken over and handed on."""
        proposal = self.proposal(descriptor)
        before = self.state.expand_as(proposal)
        if self.carrier is not None:
            before = self.carrier.start(self.index, before, proposal, self.training or torch.is_grad_enabled())
        gate = self.gate(torch.cat([descriptor, before], 1)).sigmoid()
        representation = (1 - gate) * before + gate * (proposal + self.state).tanh()
        if self.carrier is not None:
            self.carrier.put(self.index, representation)
        return representation


class _LocalSoft(DynamicConv):
    """A convolution whose K kernels are mixed anew at each position, drop-in for ``nn.ConvNd``.

    Layers of a model that was made dynamic by `dynamize` carry a kernel representation from one to the next; see
    `connect` for models put together in another way, and `LocalSoftAttention` for the formulas.

    Activation checkpointing gives the same gradients with ``use_reentrant=False``. The reentrant variant differentiates
    nothing but a segment's arguments, so there no gradient flows back along the carried representation. Compile a
    network as a whole or in parts; checkpoints inside of what is compiled need torch's setting
    ``torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint``, and compiled parts inside of checkpoints do
    not go.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As in ``nn.ConvNd``.
        num_kernels: K, the number of mixed kernels.
        width: Values in the kernel representation; layers of different widths do not go on from each other.
        temperature: Divides all logits.

    Shape:
        ``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, as ``nn.ConvNd``.

    Raises:
        ValueError: As ``nn.ConvNd`` does, or for arguments out of range.

    Source: Bhati and Sherawat, "Comprehensive Study Dynamic CNN", section 2.1.2 and eq. 1, after Zhou and Ng, "Kernel
    Representation for Dynamic Networks", BMVC 2024; our reading.
    """

    def __init__(self, *conv, num_kernels: int = 4, width: int = 32, temperature: float = 1.0, **conv_options) -> None:
        super().__init__(*conv, num_kernels=num_kernels, **conv_options)
        self.attention = LocalSoftAttention(self, width, temperature)

    def attend(self, x: Tensor) -> Attention:
        """The kernel attention ``[B, K, *S_out]`` for ``[B, C_in, *S]``."""
        return self.attention(x, self.averaged)

    def averaged(self, maps: Tensor) -> Tensor:
        """Averages ``[B, K, *S]`` over the receptive field of each output position, to ``[B, K, *S_out]``."""
        maps, padding = self.pad(maps)
        channels = maps.shape[1]
        box = maps.new_ones(channels, 1, *self.kernel_size)
        return _CONV[self.dims](maps, box / box[0].numel(), None, self.stride, padding, self.dilation, groups=channels)

    @classmethod
    def connect(cls, model: nn.Module) -> None:
        """Makes the layers of `model` one chain, and each forward of `model` one pass through it."""
        layers = [module for module in model.modules() if isinstance(module, LocalSoftAttention)]
        hooked = (getattr(hook, "__self__", None) for hook in model._forward_pre_hooks.values())
        carrier = next((owner for owner in hooked if isinstance(owner, Carrier)), None)
        if carrier is None:
            carrier = Carrier({})
            model.register_forward_pre_hook(carrier.open)
            model.register_forward_hook(carrier.close, always_call=True)
        for index, layer in enumerate(layers):
            layer.carrier, layer.index = carrier, index


class LocalSoft1d(_LocalSoft):
    __doc__ = _LocalSoft.__doc__
    dims = 1


class LocalSoft2d(_LocalSoft):
    __doc__ = _LocalSoft.__doc__
    dims = 2


class LocalSoft3d(_LocalSoft):
    __doc__ = _LocalSoft.__doc__
    dims = 3
