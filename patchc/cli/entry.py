"""Where the program starts: with the least of the standard library, ready for interrupts at once.

Imports take most of a short command's time. An interrupt among them ends the process on the spot,
since nothing has been begun. :mod:`patchc.cli.interrupts` takes over when a command begins.
"""

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What stops a command: Ctrl-C, a termination signal, a lost terminal."""

INTERRUPTED = 130

_MESSAGE = b"patchc: interrupted; nothing was left at the output\n"


def main() -> None:
    """Run the command line, and exit with its code."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, end_at_once)
    _occupy_closed_streams()
    from patchc.cli.main import run

    run()


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
