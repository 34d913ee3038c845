"""Weights from elsewhere: the published ODConv, timm's CondConv, static networks of timm and torchvision."""

from .conversion import convert_checkpoint

__all__ = ["convert_checkpoint"]
