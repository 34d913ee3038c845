"""One clear line instead of a traceback, for the errors a user caused and can mend.

The scripts behind ``mim train`` and ``mim test`` are mmseg's own and catch nothing, so the last word is Python's
``sys.excepthook``. Ours handles `UserError` and a ``conv_cfg`` of an unknown type, and hands everything else on.
``DYNCONV_DEBUG=1`` shows tracebacks.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

from mmcv.cnn.bricks.conv import build_conv_layer
from mmengine.registry import MODELS
from torch import nn

from dynconv_plugins import registry
from dynconv_plugins.errors import UnknownName, UserError

_WORKER = "DataLoader worker process"
_STATIC = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def message_of(error: UserError) -> str:
    """Returns the line to print; a data loader's worker wraps it into a traceback of which it is the last line."""
    text = str(error)
    if _WORKER in text:
        text = text.rstrip().rsplit("\n", 1)[-1].partition("Error: ")[2]
    return text


def in_our_words(error: BaseException) -> BaseException:
    """Returns `error`, but an `UnknownName` for mmcv's ``KeyError`` about a convolution that is not registered.

    mmcv says neither what was asked for nor what there is: the name is read off the frame that raised.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if not isinstance(error, KeyError) or trace is None or trace.tb_frame.f_code is not build_conv_layer.__code__:
        return error
    name = trace.tb_frame.f_locals.get("layer_type")
    if not isinstance(name, str):
        return error
    classes = (cls.__name__ for each in registry.names() for cls in registry.get(each).classes.values())
    static = (key for key, kind in MODELS.module_dict.items() if isinstance(kind, type) and issubclass(kind, _STATIC))
    return UnknownName("convolution", name, {*registry.names(), *classes, *static})


def install() -> None:
    """Hooks into ``sys.excepthook``, once."""
    before = sys.excepthook
    if getattr(before, "dynconv", False):
        return

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        error = in_our_words(error)
        if isinstance(error, UserError) and os.environ.get("DYNCONV_DEBUG", "") in ("", "0"):
            print(f"error: {message_of(error)}", file=sys.stderr)
        else:
            before(kind, error, trace)

    excepthook.dynconv = True
    sys.excepthook = excepthook


install()
