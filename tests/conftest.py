"""For all tests: interrupts work in the commands that tests start."""

from __future__ import annotations

import signal

# A shell that runs pytest in the background makes it ignore interrupts, and every command started from here would
# inherit that; with a handler of our own they start out as they do at a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
