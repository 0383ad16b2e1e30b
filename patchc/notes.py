"""What a caller should know although nothing has failed: through Python's logging.

The library prints nothing. In Python, ``logging.basicConfig(level=logging.INFO)`` shows notes; the
command line prints each once, on standard error.
"""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("patchc")
LOGGER.addHandler(logging.NullHandler())


def note(text: str) -> None:
    """Tell what was taken, or left aside, where it may not be what the caller had in mind."""
    LOGGER.info("%s", text)
