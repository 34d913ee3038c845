"""Dynamic convolutions in tsai: architectures, the static-twin procedure, a temperature callback, and a trainer.

Source: tsai, https://github.com/timeseriesAI/tsai (Apache-2.0), whose own classes are built on.
"""

from dynconv_plugins import dynamize, set_temperature
from dynconv_plugins.errors import require

require("tsai", extra="tsai")

from .archs import ARCHS, DynamicArch, ODConvFCN, ODConvInception, ODConvResNet  # noqa: E402 - after the check
from .callbacks import EpochBar, TemperatureCallback  # noqa: E402
from .nets import Net1_CNN, Net1_DCNN, Net2_CNN, Net2_DCNN  # noqa: E402
from .transfer import freeze_kernels, from_static, pretrain, thaw_kernels  # noqa: E402

__all__ = [
    "ARCHS",
    "DynamicArch",
    "EpochBar",
    "Net1_CNN",
    "Net1_DCNN",
    "Net2_CNN",
    "Net2_DCNN",
    "ODConvFCN",
    "ODConvInception",
    "ODConvResNet",
    "TemperatureCallback",
    "dynamize",
    "freeze_kernels",
    "from_static",
    "pretrain",
    "set_temperature",
    "thaw_kernels",
]
