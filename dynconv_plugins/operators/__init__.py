"""One file per operator of the literature."""

from .odconv import ODConv1d, ODConv2d, ODConv3d

__all__ = ["ODConv1d", "ODConv2d", "ODConv3d"]
