"""Which of two top sets' entries each component is applied to."""

from __future__ import annotations

from collections.abc import Sequence

from patchc.kernels.bitmask import Bitmask
from patchc.recipe.safepatching import SetOperation


def combine(operation: SetOperation, marks: Sequence[Bitmask], overlap: Bitmask) -> None:
    """Turn the components' top sets, in place, into the entries that each is applied to.

    Args:
        operation: see :class:`patchc.recipe.Recipe`.
        marks: the SE and the OSM set, or one of them alone; of one length.
        overlap: where all sets meet.
    """
    if operation == "difference":
        for own in marks:
            own &= ~overlap
    elif operation == "intersection":
        for own in marks:
            own[:] = overlap
