"""Which of two top sets' entries each component is applied to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchc.recipe.safepatching import SetOperation

Mask = NDArray[np.bool_]


def combine(operation: SetOperation, masks: Sequence[Mask], overlap: Mask) -> None:
    """Turn the components' top sets, in place, into the entries that each is applied to.

    Args:
        operation: see :class:`patchc.recipe.Recipe`.
        masks: the SE and the OSM set, or one of them alone; of one length.
        overlap: where all sets meet.
    """
    if operation == "difference":
        for mask in masks:
            mask &= ~overlap
    elif operation == "intersection":
        for mask in masks:
            mask[:] = overlap
