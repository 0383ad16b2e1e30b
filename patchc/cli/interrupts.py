"""Interrupts while a command runs: each raises KeyboardInterrupt, at a moment that can take it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from patchc.cli.entry import SIGNALS, end_at_once

_AGAIN = 0.005
_IMPORTS = "<frozen importlib._bootstrap>"


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raise KeyboardInterrupt at an interrupt in this block, and ignore those that come after it.

    This holds for signals that :mod:`patchc.cli.entry` handles. In another's process they are its.
    """
    ours = [number for number in SIGNALS if signal.getsignal(number) is end_at_once]
    if not ours:
        yield
        return
    interrupt = _Interrupt()
    sys.unraisablehook = interrupt.retry_if_lost(sys.unraisablehook)
    for number in (*ours, signal.SIGALRM):
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in (*ours, signal.SIGALRM):
            signal.signal(number, _ignore)
        signal.setitimer(signal.ITIMER_REAL, 0)  # Python's end makes an alarm deadly again


def end_at_interrupts(code: int) -> None:
    """End the process at an interrupt from now on, with the code that it has already."""
    for number in SIGNALS:
        if signal.getsignal(number) in (_ignore, end_at_once):
            signal.signal(number, lambda *_: os._exit(code))
    # Where an interrupt went through an eval, as dataclasses do, Python ends by a signal instead of
    # with the code, unless an eval has succeeded since.
    eval("0")


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """Let a message be printed to its end."""


class _Interrupt:
    """A handler of signals.

    Imports of large packages swallow an interrupt, or turn it into an error of their own, so the
    first one waits until an import is over. A second one does not wait.
    """

    def __init__(self) -> None:
        self._waiting = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        insisting = self._waiting and number != signal.SIGALRM
        if not insisting and _importing(frame):
            self._waiting = True
            self._retry()
            return
        self._waiting = False
        raise KeyboardInterrupt

    def retry_if_lost(self, report: Callable[[Any], None]) -> Callable[[Any], None]:
        """Make a hook for errors that nobody can catch, such as those raised in a destructor."""

        def hook(lost: Any) -> None:
            if isinstance(lost.exc_value, KeyboardInterrupt):
                self._retry()
            else:
                report(lost)

        return hook

    def _retry(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)


def _importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename == _IMPORTS:
            return True
        frame = frame.f_back
    return False
