"""Dynamic convolutions for timm, mmsegmentation and tsai: one engine, every operator proven against its paper."""

from . import registry
from .backends import backend
from .budget import budget, set_loss_scale
from .checkpoints import convert_checkpoint
from .complexity import Complexity, complexity
from .convert import connect, dynamize, operators_in
from .errors import UnknownName, UserError
from .explain import explain_backends
from .fold import FoldReport, fold
from .functional import Attention, dynamic_conv
from .norms import update_bn
from .operators import *  # noqa: F403 - the operators' own __all__ is the list
from .operators import __all__ as _operators
from .prune import PruneReport, prune
from .recorder import record_attention
from .temperature import LinearTemperature, anneal, set_temperature

__version__ = "0.2.0.dev0"

__all__ = [
    "Attention",
    "Complexity",
    "FoldReport",
    "LinearTemperature",
    "PruneReport",
    "UnknownName",
    "UserError",
    "anneal",
    "backend",
    "budget",
    "complexity",
    "connect",
    "convert_checkpoint",
    "dynamic_conv",
    "dynamize",
    "explain_backends",
    "fold",
    "operators_in",
    "prune",
    "record_attention",
    "registry",
    "set_loss_scale",
    "set_temperature",
    "update_bn",
    *_operators,
]
