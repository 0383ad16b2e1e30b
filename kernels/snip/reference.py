"""The accumulation of :mod:`patchc.kernels.snip`, in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def add_scores(scores: Floats, gradients: Floats, weights: Floats | None = None) -> Floats:
    """The scores after one accumulation."""
    return scores + np.abs(gradients if weights is None else weights * gradients)
