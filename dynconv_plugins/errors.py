"""Errors a user caused and can mend: one clear line each, and the exit code that goes with it."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import NoReturn


class UserError(Exception):
    """A mistake in the input. ``str(error)`` is one line that says what is wrong and what to do."""


class UnknownName(UserError, ValueError):
    """A name that is not among the known ones.

    Args:
        kind: What is named, e.g. ``'operator'``.
        name: What was asked for.
        choices: The names there are.
    """

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        self.kind, self.name, self.choices = kind, name, sorted(choices)
        super().__init__(f"unknown {kind} '{name}'{suggest(name, self.choices)}")

    def __reduce__(self):
        return type(self), (self.kind, self.name, self.choices)


def suggest(name: str, choices: Iterable[str], most: int = 8) -> str:
    """Returns ``"; did you mean ...?"`` for near misses, else ``"; known: ..."`` with the first few choices."""
    choices = list(choices)
    close = difflib.get_close_matches(str(name), choices, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    listed = ", ".join(choices[:most]) + (", ..." if len(choices) > most else "")
    return f"; known: {listed}" if choices else ""


def require(module: str, extra: str) -> ModuleType:
    """Imports `module`, or says which extra of this distribution brings it.

    Raises:
        UserError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        # A broken dependency of an installed host is a different problem and must be seen as such.
        if e.name is None or e.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise UserError(f"{module} is not installed: pip install 'dynconv-plugins[{extra}]'") from None


# What is wrong with a disk or a path, not with the program.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PATH = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
_THE_USERS = (*_FULL, errno.EACCES, errno.EPERM, errno.EROFS, *_PATH)


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command and exits: 0 (or its own code), 2 after a one-line ``error:``, 130 when interrupted, 141 when who
    reads its output has gone.

    ``DYNCONV_DEBUG=1`` shows the traceback instead.
    """
    debug = os.environ.get("DYNCONV_DEBUG", "") not in ("", "0")
    try:
        sys.exit(main() or 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except UserError as e:
        if debug:
            raise
        print(f"error: {e}", file=sys.stderr)
    except BrokenPipeError:
        # Who reads has seen enough, as `head` does. What is still buffered must not fail again on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as e:
        if debug or e.errno not in _THE_USERS:
            raise
        if e.errno in _FULL:
            where = f" while writing {e.filename}" if e.filename else ""
            line = f"no space left on the disk{where}; free some and run the same command again"
        else:
            line = f"{e.filename or 'a file'}: {(e.strerror or 'not permitted').lower()}"
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2)
