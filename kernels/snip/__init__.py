"""Accumulation of SNIP scores: score += |w · g|, in fp32 (arXiv 1810.02340).

Weights and gradients convert to fp32 exactly; the product and the sum are each rounded to fp32, in
that order. No contraction into a fused multiply-add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchc.errors import UnsupportedInputError
from patchc.jit import compiled
from patchc.kernels.launch import (
    BLOCK,
    OPTIONS,
    blocks,
    check_entries,
    code_of,
    launching_on,
    on_device,
    words_of,
)

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]

_TILE = 1 << 16


def scores_oracle(scores: Floats, gradients: Floats, weights: Floats | None = None) -> Floats:
    """The scores after one accumulation, by plain NumPy."""
    product = gradients if weights is None else weights * gradients
    return scores + np.abs(product)


def add_scores(scores: Tensor, gradients: Tensor, weights: Tensor | None = None) -> None:
    """Add |weight · gradient| to every score, in place; |gradient| where no weights are given.

    Args:
        scores: fp32, contiguous; on a GPU the sum is one kernel there, else a compiled loop.
        gradients: as many entries, of any float dtype up to 32 bits, on the same device.
        weights: as the gradients; their dtypes may differ.

    Raises:
        MismatchError: the numbers of entries differ, or the scores are not contiguous.
        UnsupportedInputError: the scores are not fp32, or a dtype has no exact conversion to it.
    """
    if str(scores.dtype) != "torch.float32":
        raise UnsupportedInputError(f"scores of {scores.dtype}; they are kept in torch.float32")
    check_entries(scores.numel(), gradients=gradients)
    total = words_of(scores).view(scores.dtype)
    gradient = gradients.detach().reshape(-1)
    gradient_code = code_of(gradient)
    if weights is None:
        weight, weight_code = gradient, 0
    else:
        check_entries(scores.numel(), weights=weights)
        weight, weight_code = weights.detach().reshape(-1), code_of(weights)
    if on_device(scores):
        from patchc.kernels.snip import triton as device

        words = words_of(gradient), words_of(weight)
        grid = (blocks(scores.numel()),)
        codes = gradient_code, weight_code
        with launching_on(scores):
            device.add_scores[grid](total, *words, scores.numel(), *codes, BLOCK, **OPTIONS)
        return
    for start in range(0, scores.numel(), _TILE):
        tile = slice(start, start + _TILE)
        if weights is None:
            _add_magnitudes(gradient[tile].float().numpy(), total[tile].numpy())
        else:
            parts = weight[tile].float().numpy(), gradient[tile].float().numpy()
            _add_products(*parts, total[tile].numpy())


@compiled
def _add_magnitudes(gradients: Floats, scores: Floats) -> None:
    for i in range(scores.size):
        scores[i] = np.float32(scores[i] + np.abs(gradients[i]))


@compiled
def _add_products(weights: Floats, gradients: Floats, scores: Floats) -> None:
    for i in range(scores.size):
        product = np.float32(weights[i] * gradients[i])
        scores[i] = np.float32(scores[i] + np.abs(product))
