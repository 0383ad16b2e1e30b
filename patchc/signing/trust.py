"""What patches a call takes, and the check that a patch is one of them."""

from __future__ import annotations

from dataclasses import dataclass

from patchc.errors import UsageError
from patchc.formats import Patch


@dataclass(frozen=True)
class Trust:
    """What patches a call takes.

    Attributes:
        allow_code: take a patch with files that a loader or an interpreter would run.
    """

    allow_code: bool = False


ANYBODY = Trust()
"""Asks for nothing by itself."""


def demand_trust(patch: Patch, trust: Trust) -> None:
    """Refuse an open patch that a call does not take, before anything is done with it.

    Raises:
        UsageError: ``trust`` is something else.
    """
    if not isinstance(trust, Trust):
        raise UsageError(f"{patch.path}: trust is {trust!r:.80}; give a patchc.Trust")
