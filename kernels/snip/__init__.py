"""Accumulation of SNIP scores: score += |w · g|, in fp32 (arXiv 1810.02340).

Weights and gradients convert to fp32 exactly; the product and the sum are each rounded to fp32, in
that order. No contraction into a fused multiply-add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchc.errors import UnsupportedInputError
from patchc.kernels import launch
from patchc.kernels.snip.cpu import add_magnitudes, add_products

if TYPE_CHECKING:
    from torch import Tensor

_TILE = 1 << 16


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
    launch.check_entries(scores.numel(), gradients=gradients)
    total = launch.words_of(scores).view(scores.dtype)
    gradient = gradients.detach().reshape(-1)
    gradient_code = launch.code_of(gradient)
    if weights is None:
        weight, weight_code = gradient, 0
    else:
        launch.check_entries(scores.numel(), weights=weights)
        weight, weight_code = weights.detach().reshape(-1), launch.code_of(weights)
    if launch.on_device(scores):
        from patchc.kernels.snip import triton as device

        words = launch.words_of(gradient), launch.words_of(weight)
        sizes = scores.numel(), gradient_code, weight_code
        launch.launch(device.add_scores, launch.blocks(scores.numel()), total, *words, *sizes)
        return
    for start in range(0, scores.numel(), _TILE):
        tile = slice(start, start + _TILE)
        sides = total[tile].numpy(), gradient[tile].float().numpy()
        if weights is None:
            add_magnitudes(*sides)
        else:
            add_products(*sides, weight[tile].float().numpy())
