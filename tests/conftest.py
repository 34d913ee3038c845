"""What every test may rely on."""

import signal

# A shell starts its background jobs with SIGINT ignored, and children inherit that: Ctrl-C must reach those of the
# tests wherever the tests themselves were started from.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
