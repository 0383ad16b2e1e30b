"""Exact top-k of scores by a stable sort: the definition of the selection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def top_mask(
    scores: NDArray[np.float32], retained: NDArray[np.bool_], count: int
) -> NDArray[np.bool_]:
    """The ``count`` highest of the retained scores; of equal ones, those of lower flat index."""
    candidates = np.flatnonzero(retained)
    order = np.argsort(-scores[candidates], kind="stable")
    mask = np.zeros(scores.shape, np.bool_)
    mask[candidates[order[:count]]] = True
    return mask
