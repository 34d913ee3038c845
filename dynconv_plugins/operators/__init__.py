"""One file per operator of the literature."""

from .a2d2c import A2D2C1d, A2D2C2d, A2D2C3d
from .a2d2cplus import A2D2CPlus1d, A2D2CPlus2d, A2D2CPlus3d
from .condconv import CondConv1d, CondConv2d, CondConv3d
from .dcd import DCD1d, DCD2d, DCD3d
from .dyconv import DyConv1d, DyConv2d, DyConv3d
from .fdconv import FDConv1d, FDConv2d, FDConv3d
from .globalsoft import GlobalSoft1d, GlobalSoft2d, GlobalSoft3d
from .hard import Hard1d, Hard2d, Hard3d
from .localsoft import LocalSoft1d, LocalSoft2d, LocalSoft3d
from .odconv import ODConv1d, ODConv2d, ODConv3d
from .orconv import ORConv1d, ORConv2d, ORConv3d

__all__ = [
    "A2D2C1d",
    "A2D2C2d",
    "A2D2C3d",
    "A2D2CPlus1d",
    "A2D2CPlus2d",
    "A2D2CPlus3d",
    "CondConv1d",
    "CondConv2d",
    "CondConv3d",
    "DCD1d",
    "DCD2d",
    "DCD3d",
    "DyConv1d",
    "DyConv2d",
    "DyConv3d",
    "FDConv1d",
    "FDConv2d",
    "FDConv3d",
    "GlobalSoft1d",
    "GlobalSoft2d",
    "GlobalSoft3d",
    "Hard1d",
    "Hard2d",
    "Hard3d",
    "LocalSoft1d",
    "LocalSoft2d",
    "LocalSoft3d",
    "ODConv1d",
    "ODConv2d",
    "ODConv3d",
    "ORConv1d",
    "ORConv2d",
    "ORConv3d",
]
