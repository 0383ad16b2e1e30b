"""The merge of :mod:`patchc.kernels.safepatching_merge`, step by step in NumPy.

The merged value is fp32(fp32(base + α · P_SE) + β · P_OSM), each product and sum rounded to fp32 in
that order, P = fp32(tuned) − fp32(base), then rounded once to the base's dtype. A component that
does not select an entry adds nothing to it. No contraction into fused multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import BY_CODE, Words
from patchc.kernels.bitmask import pack, unpack
from patchc.kernels.launch import code_of, words_of
from patchc.kernels.philox import KEEP_ALL, Retention
from patchc.kernels.rounding.cpu import load_fp32, round_masked
from patchc.kernels.safepatching_merge import Changes, ComponentTile, RankedScores
from patchc.kernels.topk import mark_top
from patchc.kernels.topk.sampled import keep_retained
from patchc.kernels.ulp_steps.cpu import changed_steps, undo_small_steps

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def add_scaled_delta(
    base: Words,
    base_code: int,
    tuned: Words,
    tuned_code: int,
    mask: Mask,
    scale: np.float32,
    merged: Floats,
) -> int:
    """Add ``scale`` · (tuned − base) to ``merged`` where ``mask`` is set, in fp32.

    Returns:
        The first masked position whose base or tuned value is not finite, or −1; ``merged`` is of
        no use then.
    """
    origin, target = np.zeros((2, base.size), np.float32)
    load_fp32(base, base_code, mask, origin)
    load_fp32(tuned, tuned_code, mask, target)
    with np.errstate(over="ignore", invalid="ignore"):
        total = merged + scale * (target - origin)
    merged[mask] = total[mask]
    faults = np.flatnonzero(~(np.isfinite(origin) & np.isfinite(target)))
    return int(faults[0]) if faults.size else -1


def select_changes(
    base: Tensor,
    components: Sequence[ComponentTile],
    first: int,
    sets: str,
    rank_all: bool,
    least_step: int,
) -> Changes:
    """The changes of a tile in the host's memory; as the function of that name in the package."""
    import torch

    words, code = _unsigned(base), code_of(base)
    masks = [_top_mask(one, first, rank_all) for one in components]
    overlap = reduce(np.logical_and, masks)
    tops = [np.count_nonzero(mask) for mask in (*masks, overlap)][: 2 * len(components) - 1]
    if sets == "difference":
        masks = [mask & ~overlap for mask in masks]
    elif sets == "intersection":
        masks = [overlap for _ in masks]
    masks = [
        _retained(mask, first, one.retention) for one, mask in zip(components, masks, strict=True)
    ]
    result, fault = _merge(words, code, components, masks)
    total_order = BY_CODE[code].total_order
    undo_small_steps(words, result, total_order, least_step)
    positions, steps = np.empty(words.size, np.uint32), np.empty(words.size, np.int64)
    count = changed_steps(words, result, total_order, positions, steps)
    return Changes(
        torch.from_numpy(positions[:count].astype(np.int32)),
        torch.from_numpy(steps[:count].astype(np.int32)),
        tuple(map(int, tops)),
        tuple(int(np.count_nonzero(mask)) for mask in masks),
        fault,
    )


def _merge(
    words: Words, code: int, components: Sequence[ComponentTile], masks: list[Mask]
) -> tuple[Words, tuple[int, int] | None]:
    """The merged words, and which component is at fault and where."""
    either = reduce(np.logical_or, masks)
    merged, result = np.zeros(words.size, np.float32), words.copy()
    load_fp32(words, code, either, merged)
    places = []
    for one, mask in zip(components, masks, strict=True):
        tuned, scale = (_unsigned(one.tuned), code_of(one.tuned)), np.float32(one.scale)
        places.append(add_scaled_delta(words, code, *tuned, mask, scale, merged))
    places.append(round_masked(words, code, either, merged, result))
    faults = [(number, place) for number, place in enumerate(places) if place >= 0]
    return result, faults[0] if faults else None


def _top_mask(one: ComponentTile, first: int, rank_all: bool) -> Mask:
    import torch

    mask: Mask
    if not isinstance(one.top, RankedScores):
        mask = one.top.reshape(-1).numpy()
        return mask
    ranked = Retention(0, 0, KEEP_ALL) if rank_all else one.retention
    found = torch.empty(one.top.scores.numel(), dtype=torch.bool)
    mark_top(one.top.scores, first, ranked, one.top.cut, one.top.taken, found)
    mask = found.numpy()
    return mask


def _retained(mask: Mask, first: int, retention: Retention) -> Mask:
    bits = pack(mask)
    keep_retained(bits, mask.size, first, retention)
    return unpack(bits, mask.size)


def _unsigned(tensor: Tensor) -> Words:
    words: Words = words_of(tensor).numpy()
    return words.view(f"u{words.dtype.itemsize}")
