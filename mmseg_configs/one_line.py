"""One clear line instead of a traceback, for the errors a user caused and can mend.

The scripts behind ``mim train`` and ``mim test`` are mmseg's own and catch nothing, so the last word is Python's
``sys.excepthook``. Ours handles `UserError` alone and hands everything else on. ``DYNCONV_DEBUG=1`` shows tracebacks.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

from dynconv_plugins.errors import UserError

_WORKER = "DataLoader worker process"


def message_of(error: UserError) -> str:
    """Returns the line to print; a data loader's worker wraps it into a traceback of which it is the last line."""
    text = str(error)
    if _WORKER in text:
        text = text.rstrip().rsplit("\n", 1)[-1].partition("Error: ")[2]
    return text


def install() -> None:
    """Hooks into ``sys.excepthook``, once."""
    before = sys.excepthook
    if getattr(before, "dynconv", False):
        return

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, UserError) and os.environ.get("DYNCONV_DEBUG", "") in ("", "0"):
            print(f"error: {message_of(error)}", file=sys.stderr)
        else:
            before(kind, error, trace)

    excepthook.dynconv = True
    sys.excepthook = excepthook


install()
