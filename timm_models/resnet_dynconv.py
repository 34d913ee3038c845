"""ResNets of timm with dynamic convolutions: ``resnet{18,34,50,101}_<operator>``.

Sources: He et al., CVPR 2016 (the networks); Li et al., "Omni-Dimensional Dynamic Convolution", ICLR 2022
(all convolutions of the residual blocks dynamic; stem, downsample and classifier static).
"""

from __future__ import annotations

import sys
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
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

__all__ = ["DynamicResNet"]

_BASES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}

default_cfgs = generate_default_cfgs(
    {f"{base}_{operator}": default_cfg("conv1", "fc") for base in _BASES for operator in OPERATORS}
)


class DynamicResNet(DynamicModel, ResNet):
    """timm's ResNet with an operator in place of some of its convolutions.

    Args:
        block: timm's block class.
        layers: Blocks in each stage.
        operator: Name in ``dynconv_plugins.registry``, or ``static``.
        where: Placement name or regular expression; ``None`` is the operator's own placement.
        small_stem: 3x3 stem of stride 1 and no max-pooling, for images of about 64 pixels; every stride of
            ``feature_info`` is then a quarter of the usual one.
        stride_in_1x1: Puts a bottleneck's stride into its first 1x1 convolution (the layout of He et al., on which
            the multiply-adds of the ODConv paper are counted) instead of the 3x3 one (timm's and torchvision's).
        anneal_steps: Training steps over which the network lowers its temperature from `temperature` (30 if not
            given) to 1 by itself, for trainers that cannot; 0: the trainer does it, or nobody.
        in_chans: Channels of the image.
        output_stride: Stride of the last features, at most.
        **kwargs: timm's ResNet arguments and the operator's (``num_kernels``, ``reduction``, ``temperature``).

    Raises:
        UserError: If an argument is unknown or does not fit the network.
    """

    def __init__(
        self,
        block: type[nn.Module],
        layers: tuple[int, ...],
        *,
        operator: str,
        where: str | None = None,
        small_stem: bool = False,
        stride_in_1x1: bool = False,
        anneal_steps: int = 0,
        in_chans: int = 3,
        output_stride: int = 32,
        **kwargs: Any,
    ) -> None:
        arguments = operator_arguments(self, operator, ResNet, kwargs)
        shrink = 4 if small_stem else 1
        if output_stride * shrink not in (8, 16, 32, 64, 128):
            raise UserError(f"output_stride={output_stride} must be one of {[s // shrink for s in (8, 16, 32)]}")
        super().__init__(block, layers, in_chans=in_chans, output_stride=min(output_stride * shrink, 32), **kwargs)
        if small_stem:
            self._use_small_stem(in_chans)
        if stride_in_1x1:
            self._move_strides()
        make_dynamic(self, operator, where, anneal_steps, arguments)

    def _use_small_stem(self, in_chans: int) -> None:
        if not isinstance(self.conv1, nn.Conv2d) or not isinstance(self.maxpool, nn.MaxPool2d):
            raise UserError("small_stem=True replaces a plain stem: drop stem_type, replace_stem_pool and aa_layer")
        like = self.conv1.weight
        self.conv1 = nn.Conv2d(in_chans, like.shape[0], 3, padding=1, bias=False, device=like.device, dtype=like.dtype)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        self.feature_info[0]["reduction"] //= 2
        for info in self.feature_info[1:]:
            info["reduction"] //= 4

    def _move_strides(self) -> None:
        blocks = [m for m in self.modules() if isinstance(m, Bottleneck)]
        if not blocks:
            raise UserError("stride_in_1x1=True needs bottleneck blocks: use resnet50 or resnet101")
        if not any(block.conv2.stride[0] > 1 for block in blocks):
            raise UserError(
                "stride_in_1x1=True has no stride to move where aa_layer has taken it: leave one of them out"
            )
        for block in blocks:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _create(base: str, operator: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    block, layers = _BASES[base]
    kwargs = without_annealing(kwargs, pretrained)
    return build_model_with_cfg(
        DynamicResNet, f"{base}_{operator}", pretrained, operator=operator, block=block, layers=layers, **kwargs
    )


def _describe(base: str, operator: dc.registry.Operator) -> str:
    return f"ResNet-{base.removeprefix('resnet')} with `{operator.name}`: {operator.summary}"


register_family(sys.modules[__name__], _BASES, _create, _describe)
