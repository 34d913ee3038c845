"""ODConv versions of tsai's own FCN, ResNet and InceptionTime, and of any other tsai architecture."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import NamedTuple

from torch import nn
from tsai.learner import all_arch_names, get_arch
from tsai.models.FCN import FCN
from tsai.models.InceptionTime import InceptionTime
from tsai.models.ResNet import ResNet
from tsai.models.utils import build_ts_model

import dynconv_plugins as dc
from dynconv_plugins import registry
from dynconv_plugins.errors import UnknownName, UserError
from dynconv_plugins.placement import select

from .blind import blind
from .nets import Net1_CNN, Net1_DCNN, Net2_CNN, Net2_DCNN
from .options import refuse_head, split
from .views import View

# Which convolutions of tsai's own networks become dynamic, whatever the operator's placement elsewhere: see `_ARGS`.
PLACEMENTS = {
    FCN: r"^convblock[23]\.",
    ResNet: r"^resblock(1\.convblock[23]|[23]\.convblock\d)\.",
    InceptionTime: r"^inceptionblock\.inception\.[1-9]",
}


class _Dynamic:
    """Mixed into one of tsai's classes: builds it, then makes its convolutions dynamic.

    `body` and `tail` name the children in the order they run; their parameters keep the names of the static twin.
    """

    host: type[nn.Module]
    body: tuple[str, ...]
    tail: tuple[str, ...]

    def __init__(
        self,
        c_in: int,
        c_out: int,
        seq_len: int | None = None,
        *,
        operator: str = "odconv",
        where=None,
        keep_weights: bool = False,
        operator_args: dict | None = None,
        **kwargs,
    ) -> None:
        refuse_head(type(self).__name__, kwargs)
        own, kwargs = split(operator, self.host, kwargs)
        own = dc.registry.get(operator).checked({**own, **(operator_args or {})})
        super().__init__(c_in, c_out, **kwargs)
        dc.dynamize(self, operator, where=where or PLACEMENTS[self.host], keep_weights=keep_weights, **own)
        self.head_nf, self.c_out, self.seq_len = self.fc.in_features, c_out, seq_len

    def __setattr__(self, name: str, value: object) -> None:
        """As any module does; a `head`, as tsai's ``change_model_head`` sets it, takes the place of the old one, and a
        `backbone` that of the modules that it consists of."""
        if name == "backbone":
            for part, module in zip(self.body, value, strict=True):
                setattr(self, part, module)
            return
        if name == "head":
            name, *rest = self.tail
            for old in rest:
                setattr(self, old, nn.Identity())
        super().__setattr__(name, value)

    # Properties, not submodules: a second registration would store each parameter twice in a state dict.
    @property
    def backbone(self) -> nn.Module:
        """Everything before the pooling, as fine-tuning splits it off."""
        return View(self, self.body)

    @property
    def head(self) -> nn.Module:
        """Pooling and classifier."""
        return View(self, self.tail)


_ARGS = """

    Maps ``[B, c_in, L]`` to logits ``[B, c_out]``. The convolutions that read the raw series stay static, because
    attention is computed from the mean over time, which is zero for any z-normalised series; so do the 1x1 shortcuts.
    `orconv` and the task mask of `hard`, which have no such attention, are placed alike: networks stay comparable.

    Args:
        c_in: Variables of the series.
        c_out: Classes.
        seq_len: Unused; any length works.
        operator: A name of the registry.
        where: Which convolutions become dynamic, as :func:`dynconv_plugins.dynamize` takes it.
        keep_weights: Start out computing what the static network computes, instead of from a fresh initialisation.
        operator_args: Arguments of the operator.
        **kwargs: The static architecture's own arguments; those that it does not have are the operator's as well, such
            as ``num_kernels``.
"""


class ODConvFCN(_Dynamic, FCN):
    __doc__ = "tsai's FCN with dynamic convolutions in its second and third block." + _ARGS
    host, body, tail = FCN, ("convblock1", "convblock2", "convblock3"), ("gap", "fc")


class ODConvResNet(_Dynamic, ResNet):
    __doc__ = "tsai's ResNet with dynamic convolutions in its residual blocks." + _ARGS
    host, body, tail = ResNet, ("resblock1", "resblock2", "resblock3"), ("gap", "squeeze", "fc")


class ODConvInception(_Dynamic, InceptionTime):
    __doc__ = "tsai's InceptionTime with dynamic convolutions in its inception modules." + _ARGS
    host, body, tail = InceptionTime, ("inceptionblock",), ("gap", "fc")


class DynamicArch:
    """Any tsai architecture with its convolutions made dynamic, to be passed as ``arch=``.

    ``TSClassifier(X, y, arch=DynamicArch(XceptionTime, 'odconv4x'))``. It carries the architecture's own name, by which
    tsai decides what arguments to pass, and can be pickled, which ``learn.export`` needs.

    Args:
        arch: A tsai architecture or its name.
        operator: A name of the registry.
        where: As :func:`dynconv_plugins.dynamize` takes it; by default, for tsai's FCN, ResNet and InceptionTime, as in
            :class:`ODConvFCN` and its like, and for others the operator's placement without the convolutions that read
            the raw series (see :func:`tsai_models.blind.blind`).
        keep_weights: As there.
        **operator_args: ``num_kernels``, ``reduction``, ...

    Raises:
        UnknownName: If there is no such architecture or operator, or the operator has no such argument.
        UserError: When called, if there is no convolution to replace, or for a y of two dimensions an architecture
            that takes no ``custom_head``.
    """

    def __init__(
        self,
        arch: str | Callable[..., nn.Module],
        operator: str = "odconv",
        where=None,
        keep_weights: bool = False,
        **operator_args,
    ) -> None:
        self.arch = find(arch) if isinstance(arch, str) else arch
        self.operator, self.operator_args = operator, dc.registry.get(operator).checked(operator_args)
        self.where = PLACEMENTS.get(self.arch) if where is None else where
        self.keep_weights = keep_weights
        self.__name__ = self.arch.__name__

    def __call__(self, *args, **kwargs) -> nn.Module:
        try:
            model = self.arch(*args, **kwargs)
        except TypeError as e:
            if "custom_head" in str(e):
                refuse_head(self.__name__, kwargs)
            raise
        without_weight_norm(model)
        try:
            where = self._placement(model, *args, **kwargs) if self.where is None else self.where
            return dc.dynamize(model, self.operator, where, keep_weights=self.keep_weights, **self.operator_args)
        except ValueError as e:
            raise UserError(f"{self.__name__}: {e}") from e

    def _placement(self, model: nn.Module, *args, **kwargs):
        """The operator's, without what is blind to the series unless all of it is."""
        placement = registry.get(self.operator).where
        chosen = select(model, placement)
        if not chosen:
            return placement  # the refusal names it
        given = inspect.signature(self.arch).bind(*args, **kwargs).arguments
        seeing = chosen.keys() - blind(model, given.get("c_in", 1), given.get("seq_len"))
        return lambda name, _module: name in (seeing or chosen)

    def __repr__(self) -> str:
        return f"DynamicArch({self.__name__}, {self.operator!r})"


def without_weight_norm(model: nn.Module) -> nn.Module:
    """Takes weight norms out, in place (TCN's): a dynamic kernel is one of several, and is taken as it is."""
    for module in model.modules():
        with contextlib.suppress(ValueError):
            nn.utils.remove_weight_norm(module)
    return model


class Arch(NamedTuple):
    """One of our architectures; its static twin, if it is dynamic; whether its kernels come from that twin, trained."""

    cls: type[nn.Module]
    twin: type[nn.Module] | None
    summary: str
    pretrained: bool = False


ARCHS = {
    a.cls.__name__: a
    for a in (
        Arch(Net1_CNN, None, "one convolution, max pooling, fully connected layers"),
        Arch(Net2_CNN, None, "two convolutions, max pooling, fully connected layers"),
        Arch(Net1_DCNN, Net1_CNN, "Net1_CNN with dynamic kernels, pre-trained and frozen", True),
        Arch(Net2_DCNN, Net2_CNN, "Net2_CNN with dynamic kernels, pre-trained and frozen", True),
        Arch(ODConvFCN, FCN, "tsai's FCN with ODConv in blocks 2 and 3"),
        Arch(ODConvResNet, ResNet, "tsai's ResNet with ODConv in the residual blocks"),
        Arch(ODConvInception, InceptionTime, "tsai's InceptionTime with ODConv in the inception modules"),
    )
}


def find(name: str) -> Callable[..., nn.Module]:
    """The architecture of that name: one of ours or one of tsai's.

    Raises:
        UnknownName: If there is none, with near misses.
    """
    if name in ARCHS:
        return ARCHS[name].cls
    if name in all_arch_names:
        return get_arch(name)
    raise UnknownName("architecture", name, [*ARCHS, *all_arch_names])


def twin_of(arch) -> Callable[..., nn.Module]:
    """The static twin of a dynamic architecture.

    Raises:
        UserError: If it has none.
    """
    if isinstance(arch, DynamicArch):
        return arch.arch
    entry = ARCHS.get(getattr(arch, "__name__", ""))
    if entry is None or entry.twin is None:
        raise UserError(f"{getattr(arch, '__name__', arch)} is not a dynamic architecture with a static twin")
    return entry.twin


def build(arch, c_in: int, c_out: int, seq_len: int | None = None, **kwargs) -> nn.Module:
    """Builds an architecture as tsai does, with the arguments tsai would pass; stays on the CPU."""
    return build_ts_model(arch, c_in=c_in, c_out=c_out, seq_len=seq_len, device="cpu", **kwargs)


def parameters(model: nn.Module) -> int:
    """How many parameters, frozen ones included."""
    return sum(p.numel() for p in model.parameters())
