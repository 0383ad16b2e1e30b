"""Task vectors of several models merged into a tile in one kernel: DARE, magnitude and TIES.

θ + λ · Σ wᵢ τᵢ over the kept entries, or the mean of the terms that agree with the elected sign in
place of the sum. The arithmetic is that of :mod:`patchc.kernels.task_vectors`; which entries are
kept comes as masks, from :func:`patchc.kernels.top_search.mark_top` over :func:`magnitudes`, with
retention draws for DARE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchc.errors import UnsupportedInputError
from patchc.kernels import task_vectors
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

_MOST_MODELS = 16
_NO_FAULT = 2**31 - 1


@dataclass(frozen=True)
class Vectors:
    """The tuned models of a tile.

    Attributes:
        tuned: shape (models, entries), of a dtype that merges, contiguous.
        masks: bool, of that shape: which entries are kept.
        scales: a weight for each model; fp32 values, for an election none negative.
    """

    tuned: Tensor
    masks: Tensor
    scales: Sequence[float]


@dataclass(frozen=True)
class Merged:
    """What becomes of a tile.

    Attributes:
        result: of the base's shape and dtype.
        kept: how many kept entries of each model are not zero.
        input_fault: the first position where a model, the base or their difference is not finite.
        fault: the first position where an election's sum is not finite, else where the result does
            not fit its dtype; None where an input has a fault.
    """

    result: Tensor
    kept: tuple[int, ...]
    input_fault: int | None
    fault: int | None


def magnitudes(base: Tensor, tuned: Tensor) -> Tensor:
    """|τ| of a tile, in fp32; what a top search ranks."""
    return (tuned.float() - base.float()).abs()


def merge_vectors(
    base: Tensor, vectors: Vectors, factor: float, elects: bool = False, majority: int = 0
) -> Merged:
    """Merge the kept entries of task vectors into a tile of the base.

    Args:
        base: the tile; any dtype that merges, contiguous.
        vectors: the models, on the base's device.
        factor: λ; an fp32 value.
        elects: whether the terms that agree with the sign of their sum are averaged.
        majority: the sum of :func:`count_signs` over all tiles; its sign stands in for that of a
            sum that is exactly zero.

    Raises:
        MismatchError: numbers of entries or models differ, or strides are not plain.
        UnsupportedInputError: a dtype does not merge, or there are more than 16 models.
    """
    import torch

    _check(base, vectors)
    result = torch.empty_like(base)
    if on_device(base):
        tally = _launch(base, vectors, result, factor, elects, majority, counts=False)
        counted = tally[:-4].sum(1).tolist()
        in_input, *later = tally[-3:].amin(1).tolist()
        if in_input != _NO_FAULT:
            return Merged(result, tuple(counted), in_input, None)
        found = [place for place in later if place != _NO_FAULT]
        return Merged(result, tuple(counted), None, found[0] if found else None)
    words, code, out = _unsigned(base), code_of(base), _unsigned(result)
    total = np.zeros(words.size, np.float32)
    sums, weights = (np.zeros((2, words.size), np.float32) for _ in range(2))
    kept, bad = [], []
    for row, scale in enumerate(vectors.scales):
        delta, mask, fault = _delta(words, code, vectors, row)
        bad += [fault] if fault >= 0 else []
        if elects:
            votes = task_vectors.add_votes(delta, mask, np.float32(scale), total, sums, weights)
            kept.append(votes)
        else:
            kept.append(task_vectors.add_scaled(delta, mask, np.float32(scale), total))
    fault = task_vectors.average_elected(total, sums, weights, majority) if elects else -1
    if fault < 0:
        fault = task_vectors.add_total(words, code, total, np.float32(factor), out)
    if bad:
        return Merged(result, tuple(kept), min(bad), None)
    return Merged(result, tuple(kept), None, fault if fault >= 0 else None)


def count_signs(base: Tensor, vectors: Vectors) -> int:
    """How many more sums of kept terms are positive than negative, in a tile.

    Raises:
        MismatchError, UnsupportedInputError: as :func:`merge_vectors`.
    """
    _check(base, vectors)
    if on_device(base):
        tally = _launch(base, vectors, base, 0.0, False, 0, counts=True)
        return int(tally[-4].sum())
    words, code = _unsigned(base), code_of(base)
    total = np.zeros(words.size, np.float32)
    for row, scale in enumerate(vectors.scales):
        delta, mask, _ = _delta(words, code, vectors, row)
        task_vectors.add_scaled(delta, mask, np.float32(scale), total)
    return task_vectors.count_signs(total)


def _check(base: Tensor, vectors: Vectors) -> None:
    models = len(vectors.scales)
    if not 1 <= models <= _MOST_MODELS:
        raise UnsupportedInputError(f"{models} models; 1 to {_MOST_MODELS} can be merged at once")
    check_entries(models * base.numel(), tuned=vectors.tuned, masks=vectors.masks)


def _launch(
    base: Tensor,
    vectors: Vectors,
    result: Tensor,
    factor: float,
    elects: bool,
    majority: int,
    counts: bool,
) -> Tensor:
    """Run the kernel and give its tally."""
    import torch

    from patchc.kernels.device import votes as device

    models, count = len(vectors.scales), blocks(base.numel())
    tally = torch.full((models + 4, count), _NO_FAULT, dtype=torch.int32, device=base.device)
    with launching_on(base):
        device.merge_vectors[(count,)](
            words_of(base),
            words_of(vectors.tuned),
            vectors.masks.view(-1).view(torch.int8),
            torch.tensor(vectors.scales, dtype=torch.float32, device=base.device),
            tally,
            words_of(result),
            *(base.numel(), majority, factor),
            *(code_of(base), code_of(vectors.tuned), models, elects, counts, BLOCK),
            **OPTIONS,
        )
    return tally


def _delta(
    words: NDArray[np.unsignedinteger], code: int, vectors: Vectors, row: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
    tuned, count = _unsigned(vectors.tuned), words.size
    delta = np.empty(count, np.float32)
    mine = tuned[row * count : (row + 1) * count]
    fault = task_vectors.subtract(words, code, mine, code_of(vectors.tuned), delta)
    masks = vectors.masks.reshape(-1)[row * count : (row + 1) * count]
    return delta, masks.numpy(), fault


def _unsigned(tensor: Tensor) -> NDArray[np.unsignedinteger]:
    words: NDArray[np.unsignedinteger] = words_of(tensor).numpy()
    return words.view(f"u{words.dtype.itemsize}")
