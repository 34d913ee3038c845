"""Registers everything of ours with mmengine: what a config's ``custom_imports`` names.

- ``conv_cfg=dict(type='ODConv2d', num_kernels=4)``, or ``dict(type='odconv4x')`` (2-D), in any component that takes
  ``conv_cfg``: mmseg's backbones, the FPN neck, the heads. mmseg's ResNets pass it to stem and downsample as well;
  `DynConvBackbone` follows the papers' placement instead. Built one by one as here, the layers of `localsoft` each
  start from their own state: only `DynConvBackbone` connects them.
- ``DynConvBackbone``, ``CheckedVOCDataset``, and the hooks ``TemperatureHook``, ``BudgetHook``, ``CheckpointGuard``,
  ``InterruptHook``, and for epoch-based loops ``ExactCheckpointHook`` and ``PatientStopping``.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn

import dynconv_plugins as dc
from dynconv_plugins.checkpoints import layouts
from dynconv_plugins.errors import UnknownName, UserError, require

MODELS = require("mmengine.registry", "mmseg").MODELS
require("mmseg", "mmseg")

# only now: the lines above say it if the extra is missing
from . import (  # noqa: E402 - they register themselves
    backbone,  # noqa: F401
    budget,  # noqa: F401
    dataset,  # noqa: F401
    guard,  # noqa: F401
    hooks,  # noqa: F401
    interrupt,  # noqa: F401
    one_line,  # noqa: F401
    resuming,  # noqa: F401
    stopping,  # noqa: F401
)


@functools.cache
def for_mmcv(operator: type[nn.Module]) -> type[nn.Module]:
    """Returns `operator` as mmcv needs it.

    ``init_weights`` is how mmcv's ``ConvModule`` knows to keep its hands off. Without it every ``ConvModule``
    re-initialises ``weight`` by its shape, in which the K kernels look like K times as many filters. There is nothing
    to do in it: operators initialise themselves when they are built.

    A static convolution's weights, such as ``init_cfg=dict(type='Pretrained')`` finds them in a published backbone, are
    taken over by `load_static`, so that the network computes what the static one did.

    Raises:
        UserError: By the class it returns, for arguments that `operator` does not take.
    """
    own = dc.registry.options_of(operator)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in own and name not in dc.registry.CONVOLUTION:
                raise UnknownName(f"argument of {operator.__name__}", name, own)
        try:
            operator.__init__(self, *args, **kwargs)
        except (TypeError, ValueError) as e:
            given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
            raise UserError(f"{operator.__name__} cannot be built with {given}: {' '.join(str(e).split())}") from e

    def init_weights(self) -> None:
        """Keeps the operator's own initialisation."""

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        misfits = layouts.static(state_dict, {prefix.removesuffix("."): self}) if prefix else {}
        rest[-1].extend(f"size mismatch for {key}: {text}" for key, text in misfits.items())
        operator._load_from_state_dict(self, state_dict, prefix, *rest)

    methods = {f.__name__: f for f in (__init__, init_weights, _load_from_state_dict)}
    return type(operator.__name__, (operator,), {**methods, "__doc__": operator.__doc__})


def register_operators() -> None:
    """Puts every operator into mmengine's root registry, where mmcv looks convolutions up; repeatable."""
    for name in dc.registry.names():
        operator = dc.registry.get(name)
        for cls in operator.classes.values():
            # Under its name here too, where pickle looks for it.
            ours = globals()[cls.__name__] = for_mmcv(cls)
            MODELS.register_module(cls.__name__, force=True, module=ours)
        MODELS.register_module(name, force=True, module=_short(name))


@functools.cache
def _short(name: str) -> Any:
    operator = dc.registry.get(name)

    def build(*args: Any, **kwargs: Any) -> nn.Module:
        return for_mmcv(operator.classes[2])(*args, **{**operator.defaults, **kwargs})

    build.__name__ = name
    build.__doc__ = f"Two-dimensional `{name}`: {operator.summary}"
    return build


register_operators()
