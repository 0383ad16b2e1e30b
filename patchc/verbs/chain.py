"""Patches that follow one another: whether each begins where the one before it ends."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from patchc.verbs.inspect import InspectReport, inspect


@dataclass(frozen=True)
class Link:
    """One patch of a chain.

    Attributes:
        patch: what it says about itself.
        follows: whether its base is the result of the patch before it; None for the first.
    """

    patch: InspectReport
    follows: bool | None


@dataclass(frozen=True)
class ChainReport:
    """Patches in the order given; ``whole`` if each follows the one before it."""

    links: tuple[Link, ...]
    whole: bool


def chain(patches: Sequence[str | os.PathLike[str]]) -> ChainReport:
    """Describe patches and compare the digests where one is to follow the other. Needs no model.

    Raises:
        PatchFormatError, UnsupportedPatchError: a patch cannot be read.
    """
    reports = [inspect(patch) for patch in patches]
    links = [
        Link(report, reports[place - 1].result_digest == report.base_digest if place else None)
        for place, report in enumerate(reports)
    ]
    return ChainReport(tuple(links), all(link.follows is not False for link in links))
