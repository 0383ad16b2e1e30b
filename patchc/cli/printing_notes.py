"""Prints the library's notes (:mod:`patchc.notes`) on standard error, each once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from patchc.cli.output import print_problem
from patchc.cli.voice import voice
from patchc.notes import LOGGER


class _Printer(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._printed and not voice().quiet:
            self._printed.add(text)
            print_problem(f"note: {text}")


@contextmanager
def printing_notes() -> Iterator[None]:
    """Print the notes of this block; under torchrun, those of the first rank."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    printer, level = _Printer(), LOGGER.level
    LOGGER.addHandler(printer)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(printer)
        LOGGER.setLevel(level)
