"""MobileNetV2 of timm with dynamic convolutions: ``mobilenetv2_{050,075,100}_<operator>``.

Sources: Sandler et al., "MobileNetV2", CVPR 2018, table 2 (the network); Li et al., "Omni-Dimensional Dynamic
Convolution", ICLR 2022 (every convolution dynamic but the stem).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs
from timm.models._builder import pretrained_cfg_for_features
from timm.models._efficientnet_builder import decode_arch_def, resolve_act_layer, resolve_bn_args, round_channels
from timm.models._features import FeatureHooks
from timm.models.efficientnet import EfficientNet, EfficientNetFeatures
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError

from .dynamic import (
    OPERATORS,
    default_cfg,
    make_dynamic,
    operator_arguments,
    register_family,
    without_annealing,
)
from .mixin import DynamicModel

__all__ = ["DynamicMobileNetV2", "DynamicMobileNetV2Features"]

_WIDTHS = {"mobilenetv2_050": 0.5, "mobilenetv2_075": 0.75, "mobilenetv2_100": 1.0}
# Rows (expansion, channels, repeats, stride) of the paper's table 2, all with 3x3 depthwise convolutions.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

default_cfgs = generate_default_cfgs(
    {f"{b}_{operator}": default_cfg("conv_stem", "classifier") for b in _WIDTHS for operator in OPERATORS}
)


class _Dynamic(DynamicModel):
    """timm's MobileNetV2 with an operator in place of some of its convolutions.

    Args:
        operator: Name in ``dynconv_plugins.registry``, or ``static``.
        where: Placement name or regular expression; ``None`` is the operator's own placement.
        small_stem: Stem of stride 1, for images of about 64 pixels; every stride of ``feature_info`` is then half
            the usual one.
        anneal_steps: Training steps over which the network lowers its temperature from `temperature` (30 if not
            given) to 1 by itself, for trainers that cannot; 0: the trainer does it, or nobody.
        output_stride: Stride of the last features, at most.
        **kwargs: timm's arguments and the operator's (``num_kernels``, ``reduction``, ``temperature``).

    Raises:
        UserError: If an argument is unknown or does not fit the network.
    """

    def __init__(
        self,
        *,
        operator: str,
        where: str | None = None,
        small_stem: bool = False,
        anneal_steps: int = 0,
        output_stride: int = 32,
        **kwargs: Any,
    ) -> None:
        host = EfficientNetFeatures if isinstance(self, EfficientNetFeatures) else EfficientNet
        arguments = operator_arguments(self, operator, host, kwargs)
        shrink = 2 if small_stem else 1
        if output_stride * shrink not in (8, 16, 32, 64):
            raise UserError(f"output_stride={output_stride} must be one of {[s // shrink for s in (8, 16, 32)]}")
        super().__init__(output_stride=min(output_stride * shrink, 32), **kwargs)
        if small_stem:
            self.conv_stem.stride = (1, 1)
            infos = self.feature_info.info if host is EfficientNetFeatures else self.feature_info
            for info in infos:
                info["reduction"] //= 2
        make_dynamic(self, operator, where, anneal_steps, arguments)
        if getattr(self, "feature_hooks", None) is not None:
            # timm has hooked modules that are no longer there.
            wanted = self.feature_info.get_dicts(keys=("module", "hook_type"))
            self.feature_hooks = FeatureHooks(wanted, self.named_modules())


class DynamicMobileNetV2(_Dynamic, EfficientNet):
    __doc__ = _Dynamic.__doc__


class DynamicMobileNetV2Features(_Dynamic, EfficientNetFeatures):
    """The same as timm builds it for ``features_only=True``: a list of feature maps, no head."""


def _create(base: str, operator: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    # timm's notation: `ds` is the block without expansion.
    rows = [[f"{'ds' if t == 1 else f'ir_e{t}'}_r{n}_k3_s{s}_c{c}"] for t, c, n, s in _STAGES]
    round_chs_fn = partial(round_channels, multiplier=_WIDTHS[base])
    kwargs = without_annealing(kwargs, pretrained)
    bn_args = resolve_bn_args(kwargs)
    kwargs = {
        "block_args": decode_arch_def(rows),
        "num_features": max(1280, round_chs_fn(1280)),
        "round_chs_fn": round_chs_fn,
        "norm_layer": kwargs.pop("norm_layer", None) or partial(nn.BatchNorm2d, **bn_args),
        "act_layer": resolve_act_layer(kwargs, "relu6"),
        **kwargs,
    }
    # As timm does: its own extractor, unless the caller asks for one of the generic wrappers.
    wrapped = "feature_cfg" in kwargs or "feature_cls" in kwargs
    extract = kwargs.pop("features_only", False)
    strict = kwargs.pop("pretrained_strict", True)
    features = extract and not wrapped
    model = build_model_with_cfg(
        DynamicMobileNetV2Features if features else DynamicMobileNetV2,
        f"{base}_{operator}",
        pretrained,
        operator=operator,
        features_only=extract and wrapped,
        pretrained_strict=strict and not features,
        kwargs_filter=("num_classes", "num_features", "global_pool") if features else None,
        **kwargs,
    )
    if features:
        model.pretrained_cfg = model.default_cfg = pretrained_cfg_for_features(model.pretrained_cfg)
    return model


def _describe(base: str, operator: dc.registry.Operator) -> str:
    return f"MobileNetV2, width {_WIDTHS[base]:g}, with `{operator.name}`: {operator.summary}"


register_family(sys.modules[__name__], _WIDTHS, _create, _describe)
