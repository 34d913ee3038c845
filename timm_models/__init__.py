"""Importing this package registers timm models with dynamic convolutions: ``timm.list_models('*odconv*')``.

``python -m timm_models run SCRIPT.py ARGS...`` runs a script of timm with them, ``python -m timm_models train`` trains.
"""

from __future__ import annotations

import sys

from dynconv_plugins.errors import UserError, require

try:
    require("timm", extra="timm")
except UserError as e:
    # `python -m timm_models` imports this file before __main__.py could turn the error into a line.
    if sys.argv[:1] != ["-m"]:
        raise
    print(f"error: {e}", file=sys.stderr)
    sys.exit(2)

from . import mobilenetv2_dynconv, resnet_dynconv
from .condconv import adopt_condconv
from .mobilenetv2_dynconv import DynamicMobileNetV2
from .resnet_dynconv import DynamicResNet

__all__ = ["DynamicMobileNetV2", "DynamicResNet", "adopt_condconv", "list_models"]


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names registered here that match a shell-style `pattern`, sorted."""
    from timm import list_models as find

    modules = (mobilenetv2_dynconv, resnet_dynconv)
    return sorted(name for m in modules for name in find(pattern, module=m.__name__.rpartition(".")[2]))
