"""Any convolutional classifier of timm, ours included, as a backbone of mmseg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

import timm_models  # noqa: F401  (importing registers our models with timm)
from dynconv_plugins.checkpoints import layouts
from dynconv_plugins.convert import connect
from dynconv_plugins.errors import UnknownName, UserError

from .weights import load_features


@MODELS.register_module(force=True)
class DynConvBackbone(BaseModule):
    """Feature maps of a timm model, e.g. ``resnet18_odconv``: dynamic where the operator's paper has it.

    Args:
        model_name: A model that `timm` knows once `timm_models` is imported.
        out_indices: Which feature maps, as timm counts: for ResNets 0 is the stem and 1..4 are the four stages.
        output_stride: Stride of the deepest map; later stages are dilated instead. ``None``: the model's own.
        frozen_stages: Everything that the feature map of this index is computed by (0: the stem) gets no gradient and
            stays in eval mode, attention branches included. -1: nothing.
        norm_eval: Keeps every batch norm in eval mode during training, those in attention branches too.
        with_cp: Computes activations again in the backward pass instead of keeping them, as mmseg's ResNets do.
        checkpoint: File to start training from: our trainer's or timm's ``.pth.tar``, a plain state dict, safetensors,
            or a segmentor's with such a backbone. Classifier or head in it are dropped; everything else must match,
            except that a static network's weights start its dynamic twin. Tests do without it.
        in_channels: Channels of the image.
        init_cfg: mmengine's; not needed, timm's models initialise themselves. ``Pretrained`` needs the ``prefix`` under
            which a segmentor's checkpoint holds its backbone.
        **kwargs: For the model (``num_kernels``, ``reduction``, ``small_stem``, ``drop_path_rate``, ...).

    Shape:
        ``[B, in_channels, H, W]`` to one ``[B, C_i, H / stride_i, W / stride_i]`` per index; `channels` and `strides`
        say which.

    Raises:
        UnknownName: If timm has no such model.
        UserError: If an index, a stage or a model argument is out of place; in `init_weights`, if the checkpoint is
            missing or does not match.
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        output_stride: int | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        checkpoint: str | None = None,
        in_channels: int = 3,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        self._check(model_name, out_indices, frozen_stages, in_channels, kwargs)
        if ":" not in model_name and not timm.is_model(model_name.partition(".")[0]):
            raise UnknownName("model", model_name, timm.list_models())
        options = dict(kwargs, in_chans=in_channels, pretrained=bool(kwargs.get("pretrained")))
        if output_stride is not None:
            options["output_stride"] = output_stride
        try:
            self.model = timm.create_model(model_name, features_only=True, out_indices=tuple(out_indices), **options)
        except UserError:
            raise
        except Exception as e:  # whatever a model's constructor makes of its arguments
            why = " ".join(str(e).split())
            raise UserError(f"{model_name} takes no {options}, out_indices={tuple(out_indices)}: {why}") from e
        # timm has taken the network apart: what goes from layer to layer must know whose forward it belongs to.
        connect(self.model)
        self.channels: list[int] = self.model.feature_info.channels()
        self.strides: list[int] = self.model.feature_info.reduction()
        if getattr(self.model, "output_fmt", "NCHW") != "NCHW":
            raise UserError(
                f"{model_name} has its channels last ({self.model.output_fmt}), which mmseg's heads have not"
            )
        if with_cp:
            self._recompute(model_name)
        self.norm_eval = norm_eval
        self.checkpoint = checkpoint
        if checkpoint:
            # Here and not where it is needed: it draws random numbers, and heads that are built next draw theirs after.
            extracting = ("feature_cls", "feature_cfg", "feature_location", "output_fmt")
            options = {name: value for name, value in options.items() if name not in extracting}
            whole = timm.create_model(model_name, **{**options, "pretrained": False})
            self._classifier_keys = list(whole.state_dict())
        self._frozen = self._stages(frozen_stages)
        for parameter in (p for name in self._frozen for p in self.model.get_submodule(name).parameters()):
            parameter.requires_grad_(False)

    def _recompute(self, model_name: str) -> None:
        try:
            self.model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            raise UserError(f"{model_name} cannot recompute activations: leave with_cp out") from None

    def init_weights(self) -> None:
        """Starts from `checkpoint`, if there is one; mmengine calls this before it trains, not before it tests."""
        again = self.is_init
        super().init_weights()
        if not again:
            self.load_checkpoint()

    def load_checkpoint(self) -> None:
        """Reads `checkpoint`, if there is one.

        Raises:
            UserError: If it is missing, damaged, or of another architecture.
        """
        if self.checkpoint:
            load_features(self.model, self.checkpoint, self._classifier_keys)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        layouts.start_static(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the feature maps, shallow to deep."""
        return tuple(self.model(x))

    def train(self, mode: bool = True) -> DynConvBackbone:
        """As ``nn.Module.train``, but frozen stages and, with `norm_eval`, batch norms stay in eval mode."""
        super().train(mode)
        for name in self._frozen:
            self.model.get_submodule(name).eval()
        if self.norm_eval:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _check(self, model_name: Any, out_indices: Any, frozen_stages: Any, in_channels: Any, others: dict) -> None:
        """Refuses what timm would take for something else, or would end in a traceback."""
        if not isinstance(model_name, str):
            raise UserError(f"model_name must be the name of a timm model, not {model_name!r}")
        if "in_chans" in others:
            raise UserError(f"in_chans={others['in_chans']!r}: write in_channels=")
        # A string is what mmseg's own backbones take; to timm any is a wish to download.
        if isinstance(others.get("pretrained"), str):
            raise UserError(
                f"pretrained={others['pretrained']!r}: set model=dict(pretrained=None), which is where base configs of "
                "mmseg have it, and start from a file with checkpoint=FILE"
            )
        for given in pretrained(self.init_cfg):
            if not given.get("prefix"):
                raise UserError("init_cfg=dict(type='Pretrained', ...): start from a file with checkpoint=FILE")
        if not isinstance(out_indices, Sequence) or not all(isinstance(i, int) for i in out_indices):
            raise UserError(f"out_indices must be whole numbers, as (1, 2, 3, 4), not {out_indices!r}")
        for name, value, least in (("frozen_stages", frozen_stages, -1), ("in_channels", in_channels, 1)):
            if not isinstance(value, int) or value < least:
                raise UserError(f"{name} must be a whole number of at least {least}, not {value!r}")

    def _stages(self, last: int) -> list[str]:
        """Names of the submodules that feature map `last` is computed by, in order."""
        if last < 0:
            return []
        ends = [info["module"] for info in self.model.feature_info.info]
        if last >= len(ends):
            raise UserError(f"frozen_stages={last}: this backbone has stages 0 to {len(ends) - 1}")
        names: list[str] = []
        for name, child in self.model.named_children():
            # `blocks.4` lies in a container that also holds deeper stages: count its children one by one.
            inside = any(end.startswith(f"{name}.") for end in ends)
            for part in [f"{name}.{key}" for key, _ in child.named_children()] if inside else [name]:
                names.append(part)
                if part.replace(".", "_") == ends[last].replace(".", "_"):
                    return names
        raise UserError(f"frozen_stages={last} lies beyond the deepest feature map of out_indices")


def pretrained(init_cfg: Mapping | Sequence[Mapping] | None) -> list[Mapping]:
    """The entries of an ``init_cfg`` of mmengine's that load a file."""
    entries = [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg or []
    return [entry for entry in entries if entry.get("type") == "Pretrained"]
