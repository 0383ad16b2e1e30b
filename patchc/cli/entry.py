"""Where the program starts: with the least of the standard library, ready for interrupts at once.

Imports take most of a short command's time. An interrupt among them ends the process on the spot,
since nothing has been begun. :mod:`patchc.cli.interrupts` takes over when a command begins.
"""

import os
import signal
import sys
from types import FrameType

SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if name in signal.Signals.__members__
)
"""What stops a command: Ctrl-C, a termination signal, a lost terminal."""

INTERRUPTED = 130
NOTHING = "nothing was written"

_MESSAGE = f"patchc: interrupted; {NOTHING}\n".encode()


def main() -> None:
    """Run the command line, and exit with its code."""
    _refuse_unsupported()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, end_at_once)
    _occupy_closed_streams()
    from patchc.cli.main import run

    run()


def _refuse_unsupported() -> None:
    """End the process on a system that patchc is not made for, before anything fails on it.

    Only what nothing here can do without is looked at; commands that need more say so themselves.
    """
    if os.name != "posix":
        lacking = "has no POSIX files and signals; use Linux, on Windows in WSL"
    elif sys.byteorder != "little":
        lacking = "stores the high byte of a number first; use a little-endian machine"
    elif sys.maxsize < 2**32:
        lacking = "has addresses of 32 bits; use a 64-bit Python"
    else:
        return
    from patchc.errors import UnsupportedSystemError

    sys.stderr.write(f"patchc: error: this system ({sys.platform}) {lacking}\n")
    sys.exit(UnsupportedSystemError.exit_code)


def end_at_once(_signal: int, _frame: FrameType | None) -> None:
    """End the process with a message, where no command has begun."""
    try:
        os.write(2, _MESSAGE)
    finally:
        os._exit(INTERRUPTED)


def _occupy_closed_streams() -> None:
    """Open nothing in place of standard streams that are closed.

    Otherwise the first files to be opened would get their numbers, and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
