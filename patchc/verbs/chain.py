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
        follows: whether its base is the result of the patch before it; None for the first, and
            where the patch before it is additive and promises no result.
    """

    patch: InspectReport
    follows: bool | None


@dataclass(frozen=True)
class ChainReport:
    """Patches in the order given.

    ``whole`` if each follows the one before it; not if one does not; else None, where it is unknown
    of one.
    """

    links: tuple[Link, ...]
    whole: bool | None


def chain(patches: Sequence[str | os.PathLike[str]]) -> ChainReport:
    """Describe patches and compare the digests where one is to follow the other. Needs no model.

    Raises:
        PatchFormatError, UnsupportedPatchError: a patch cannot be read.
    """
    reports = [inspect(patch) for patch in patches]
    befores = [None, *(report.result_digest for report in reports[:-1])]
    follows = [
        None if before is None else before == report.base_digest
        for before, report in zip(befores, reports, strict=True)
    ]
    links = tuple(map(Link, reports, follows))
    if False in follows:
        return ChainReport(links, False)
    return ChainReport(links, None if None in follows[1:] else True)
