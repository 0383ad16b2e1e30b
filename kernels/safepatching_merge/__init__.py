"""Selection and merge of a tile of tensors in one kernel: what becomes of a base, as steps.

For each part: the retention draw, its top set, the set operation on the two, scale · delta added
in fp32 where the entry is retained, rounded once to the base's dtype; then the step from the base's
word, compacted to (position, step). The arithmetic is that of ``reference.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import BY_CODE
from patchc.errors import UnsupportedInputError
from patchc.kernels.bitmask import pack, unpack
from patchc.kernels.launch import (
    BLOCK,
    OPTIONS,
    blocks,
    check_entries,
    code_of,
    draw_arguments,
    launching_on,
    on_device,
    words_of,
)
from patchc.kernels.philox.cpu import KEEP_ALL, Retention
from patchc.kernels.safepatching_merge.reference import add_scaled_delta, load_fp32, round_masked
from patchc.kernels.topk import mark_top, ties_before
from patchc.kernels.topk.sampled import keep_retained
from patchc.kernels.ulp_steps.cpu import changed_steps, undo_small_steps

if TYPE_CHECKING:
    from torch import Tensor

Mask = NDArray[np.bool_]

_LARGEST_STEP = 2**31 - 1


@dataclass(frozen=True)
class RankedScores:
    """A top set that a cut of scores defines.

    Attributes:
        scores: the tile's, fp32.
        cut: as :meth:`patchc.kernels.topk.TopSearch.cut` gives it.
        taken: one int64: entries equal to the key in earlier tiles; this tile's are added to it.
    """

    scores: Tensor
    cut: Tensor
    taken: Tensor


@dataclass(frozen=True)
class Part:
    """One of the patches that are merged.

    Attributes:
        tuned: the tile of the tuned model; any dtype that merges.
        top: its top set: ranked scores, or the mask itself, bool.
        retention: which entries are retained.
        scale: factor of the delta, α or β; an fp32 value.
    """

    tuned: Tensor
    top: RankedScores | Tensor
    retention: Retention
    scale: float


@dataclass(frozen=True)
class Changes:
    """What becomes of a tile.

    Attributes:
        positions: int32, ascending, within the tile.
        steps: int32, none 0, one a position.
        tops: sizes of the top sets, and of their overlap where there are two.
        applied: how many entries each part is applied to.
        fault: None, or which part has a value that is not finite (the number of parts stands for
            the merged value, not finite or too large for its dtype), and the first such position.
    """

    positions: Tensor
    steps: Tensor
    tops: tuple[int, ...]
    applied: tuple[int, ...]
    fault: tuple[int, int] | None


def select_changes(
    base: Tensor,
    parts: Sequence[Part],
    first: int,
    sets: str,
    rank_all: bool = False,
    least_step: int = 1,
) -> Changes:
    """Select among the parts, merge them into a tile of the base, and give the changes.

    Args:
        base: the tile; any dtype that merges, contiguous.
        parts: one or two, each as long as the base and on its device.
        first: flat index of the tile's first entry; a multiple of 4.
        sets: "difference", "intersection" or, for the whole of each top set, anything else; of no
            consequence where there is one part.
        rank_all: whether all entries are ranked, instead of the retained ones.
        least_step: changes of fewer steps are dropped.

    Raises:
        MismatchError: the numbers of entries differ.
        UnsupportedInputError: there are more than two parts, or a dtype does not merge.
    """
    if not 1 <= len(parts) <= 2:
        raise UnsupportedInputError(f"{len(parts)} parts; one or two can be merged")
    for part in parts:
        top = part.top.scores if isinstance(part.top, RankedScores) else part.top
        check_entries(base.numel(), tuned=part.tuned, top=top)
    if len(parts) == 1:
        sets = "union"
    select = _select_on_device if on_device(base) else _select_in_numpy
    return select(base, parts, first, sets, rank_all, min(least_step, _LARGEST_STEP))


def _select_on_device(
    base: Tensor,
    parts: Sequence[Part],
    first: int,
    sets: str,
    rank_all: bool,
    least_step: int,
) -> Changes:
    import torch

    from patchc.kernels.safepatching_merge import triton as device

    entries, lead = base.numel(), first % 4
    count = blocks(entries + lead)

    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=base.device)

    pair = (parts[0], parts[-1])
    tops = [_top_argument(part) for part in pair]
    tally = torch.zeros((device.ROWS.value, count), dtype=torch.int32, device=base.device)
    tally[device.FAULTS.value :] = device.NO_FAULT.value
    staged = integers(count * BLOCK), integers(count * BLOCK)
    before = torch.zeros((2, count), dtype=torch.int64, device=base.device)
    draws = [draw_arguments(part.retention) for part in pair]
    numbers = [(part.scale, *draw[:3]) for part, draw in zip(pair, draws, strict=True)]
    arguments = (
        words_of(base),
        *(words_of(part.tuned) for part in pair),
        *(top for top, _ in tops),
        *(cut for _, cut in tops),
        *(before, tally, *staged, least_step, entries, first),
        *(number for values in numbers for number in values),
    )
    constants = (
        code_of(base),
        *(code_of(part.tuned) for part in pair),
        *(not isinstance(part.top, RankedScores) for part in pair),
        *(draw[3] for draw in draws),
        *(len(parts), sets, rank_all, lead),
    )
    with launching_on(base):
        device.select[(count,)](*arguments, *constants, False, BLOCK, **OPTIONS)
        ranked = [(n, p.top) for n, p in enumerate(parts) if isinstance(p.top, RankedScores)]
        for number, top in ranked:
            before[number] = ties_before(tally[number], top.taken)
        if ranked:
            device.select[(count,)](*arguments, *constants, True, BLOCK, **OPTIONS)
        ends = tally[device.CHANGES.value].cumsum(0)
        found = int(ends[-1])
        positions, steps = integers(found), integers(found)
        device.gather[(count,)](*staged, ends, positions, steps, BLOCK, **OPTIONS)
    sums = tally[: device.FAULTS.value].sum(1).tolist()
    tops_at, applied_at = device.TOPS.value, device.APPLIED.value
    first_faults = tally[device.FAULTS.value :].amin(1).tolist()
    if len(parts) == 1:
        first_faults.pop(1)
    faults = [(n, place) for n, place in enumerate(first_faults) if place != device.NO_FAULT.value]
    return Changes(
        positions,
        steps,
        tuple(sums[tops_at : tops_at + 2 * len(parts) - 1]),
        tuple(sums[applied_at : applied_at + len(parts)]),
        faults[0] if faults else None,
    )


def _top_argument(part: Part) -> tuple[Tensor, Tensor]:
    import torch

    if isinstance(part.top, RankedScores):
        return words_of(part.top.scores), part.top.cut
    mask = part.top.view(-1).view(torch.int8)
    return mask, mask


def _select_in_numpy(
    base: Tensor,
    parts: Sequence[Part],
    first: int,
    sets: str,
    rank_all: bool,
    least_step: int,
) -> Changes:
    import torch

    words, code = _unsigned(base), code_of(base)
    masks = [_mark(part, first, rank_all) for part in parts]
    overlap = reduce(np.logical_and, masks)
    tops = [np.count_nonzero(mask) for mask in (*masks, overlap)][: 2 * len(parts) - 1]
    if sets == "difference":
        masks = [mask & ~overlap for mask in masks]
    elif sets == "intersection":
        masks = [overlap.copy() for _ in masks]
    for part, mask in zip(parts, masks, strict=True):
        marks = pack(mask)
        keep_retained(marks, mask.size, first, part.retention)
        mask[:] = unpack(marks, mask.size)
    either = reduce(np.logical_or, masks)
    merged = np.zeros(words.size, np.float32)
    load_fp32(words, code, either, merged)
    fault: tuple[int, int] | None = None
    for number, (part, mask) in enumerate(zip(parts, masks, strict=True)):
        tuned = _unsigned(part.tuned), code_of(part.tuned)
        place = add_scaled_delta(words, code, *tuned, mask, np.float32(part.scale), merged)
        if place >= 0 and fault is None:
            fault = number, place
    result = words.copy()
    place = round_masked(words, code, either, merged, result)
    if place >= 0 and fault is None:
        fault = len(parts), place
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


def _mark(part: Part, first: int, rank_all: bool) -> Mask:
    import torch

    if not isinstance(part.top, RankedScores):
        mask: Mask = part.top.reshape(-1).numpy().copy()
        return mask
    ranked = part.retention
    if rank_all:
        ranked = Retention(ranked.seed, ranked.stream, KEEP_ALL)
    marks = torch.empty(part.top.scores.numel(), dtype=torch.bool)
    mark_top(part.top.scores, first, ranked, part.top.cut, part.top.taken, marks)
    found: Mask = marks.numpy()
    return found


def _unsigned(tensor: Tensor) -> NDArray[np.unsignedinteger]:
    words: NDArray[np.unsignedinteger] = words_of(tensor).numpy()
    return words.view(f"u{words.dtype.itemsize}")
