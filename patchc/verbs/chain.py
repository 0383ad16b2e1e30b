"""Chains of patches: whether each patch starts from the result of the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from patchc.paths import PathLike, listed
from patchc.verbs.inspect import InspectReport, inspect


@dataclass(frozen=True)
class Link:
    """One patch of a chain.

    Attributes:
        patch: what the patch says about itself.
        follows: whether its base is the result of the patch before it. None for the first patch,
            after an additive patch, which promises no result, and after one with chunks of another
            size, whose digests are others.
    """

    patch: InspectReport
    follows: bool | None


@dataclass(frozen=True)
class ChainReport:
    """Patches in the given order.

    Attributes:
        links: one for each patch.
        whole: whether each follows the one before it; None if that is not known for all of them.
    """

    links: tuple[Link, ...]
    whole: bool | None

    def breaks(self) -> tuple[str, ...]:
        """Say of each patch that does not follow the one before it where the two are apart."""
        return tuple(
            f"{after.patch.path} does not follow {before.patch.path}: its base is "
            f"{after.patch.base_digest}, and the other's result is {before.patch.result_digest}"
            for before, after in pairwise(self.links)
            if after.follows is False
        )


def chain(patches: PathLike | Sequence[PathLike]) -> ChainReport:
    """Describe patches, and compare the digests of each with those of the one before it.

    Args:
        patches: patch files in their order, or one.

    Raises:
        PatchFormatError, UnsupportedPatchError: a patch cannot be read.
    """
    reports = [inspect(path) for path in listed(patches)]
    follows: list[bool | None] = [
        None
        if before.result_digest is None or before.chunk_words != after.chunk_words
        else before.result_digest == after.base_digest
        for before, after in pairwise(reports)
    ]
    whole = False if False in follows else None if None in follows else True
    return ChainReport(tuple(map(Link, reports, [None, *follows])), whole)
