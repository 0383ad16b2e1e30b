"""How much the running command says, and what it was called with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Voice:
    """The manner of one command.

    Attributes:
        command: its name.
        arguments: what follows the name on the command line.
        verbose: tell where each stage begins and ends.
        quiet: print only errors, warnings and JSON.
        config: the file of options that it was given.
    """

    command: str = ""
    arguments: tuple[str, ...] = ()
    verbose: bool = False
    quiet: bool = False
    config: Path | None = None


_PLAIN = Voice()
_voice: ContextVar[Voice] = ContextVar("voice", default=_PLAIN)


def voice() -> Voice:
    """Return the manner of the command that runs."""
    return _voice.get()


@contextmanager
def speaking(manner: Voice) -> Iterator[None]:
    """Let the commands in this block speak so."""
    token = _voice.set(manner)
    try:
        yield
    finally:
        _voice.reset(token)
