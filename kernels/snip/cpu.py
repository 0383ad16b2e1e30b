"""The accumulation of :mod:`patchc.kernels.snip`, as compiled loops."""

from __future__ import annotations

import numpy as np

from patchc.jit import loop
from patchc.kernels.snip.reference import Floats


@loop
def add_magnitudes(scores: Floats, gradients: Floats) -> None:
    """Add |gradient| to every score, in place."""
    for i in range(scores.size):
        scores[i] = np.float32(scores[i] + np.abs(gradients[i]))


@loop
def add_products(scores: Floats, gradients: Floats, weights: Floats) -> None:
    """Add |weight · gradient| to every score, in place."""
    for i in range(scores.size):
        product = np.float32(weights[i] * gradients[i])
        scores[i] = np.float32(scores[i] + np.abs(product))
