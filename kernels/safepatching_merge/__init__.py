"""Selection and merge of a tile of tensors in one kernel: the changes of a base, as steps.

For each component: the retention draw, its top set, the set operation on the two, scale · delta
added in fp32 where the entry is retained, rounded once to the base's dtype; then the step from the
base's word, compacted to (position, step). ``reference.py`` defines the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchc.errors import UnsupportedInputError
from patchc.kernels import launch
from patchc.kernels.philox import Retention
from patchc.kernels.topk import ties_before

if TYPE_CHECKING:
    from torch import Tensor

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
class ComponentTile:
    """A tile of one of the components that are merged.

    Attributes:
        tuned: the tile of the tuned model; any dtype that merges.
        top: its top set: ranked scores, or the mask itself, bool.
        retention: which entries are retained.
        scale: of the delta, α or β; an fp32 value.
    """

    tuned: Tensor
    top: RankedScores | Tensor
    retention: Retention
    scale: float


@dataclass(frozen=True)
class Changes:
    """The changes of a tile of the base.

    Attributes:
        positions: int32, ascending, within the tile.
        steps: int32, none 0, one for each position.
        tops: sizes of the top sets, and of their overlap where there are two.
        applied: how many entries each component is applied to.
        fault: None, or which component has a value that is not finite (the number of components
            stands for the merged value, not finite or too large for its dtype), and the first such
            position.
    """

    positions: Tensor
    steps: Tensor
    tops: tuple[int, ...]
    applied: tuple[int, ...]
    fault: tuple[int, int] | None


def select_changes(
    base: Tensor,
    components: Sequence[ComponentTile],
    first: int,
    sets: str,
    rank_all: bool = False,
    least_step: int = 1,
) -> Changes:
    """Select entries, merge the components into a tile of the base there, and give the changes.

    Args:
        base: the tile; any dtype that merges, contiguous.
        components: one or two, each as long as the base and on its device.
        first: flat index of the tile's first entry; a multiple of 4.
        sets: "difference", "intersection" or, for the whole of each top set, anything else; of no
            consequence where there is one component.
        rank_all: whether all entries are ranked, instead of the retained ones.
        least_step: changes of fewer steps are dropped.

    Raises:
        MismatchError: the numbers of entries differ.
        UnsupportedInputError: there are more than two components, or a dtype does not merge.
    """
    if not 1 <= len(components) <= 2:
        raise UnsupportedInputError(f"{len(components)} components; one or two can be merged")
    for one in components:
        top = one.top.scores if isinstance(one.top, RankedScores) else one.top
        launch.check_entries(base.numel(), tuned=one.tuned, top=top)
    if len(components) == 1:
        sets = "union"
    least_step = min(least_step, _LARGEST_STEP)
    if launch.on_device(base):
        return _select_on_device(base, components, first, sets, rank_all, least_step)
    from patchc.kernels.safepatching_merge import reference

    return reference.select_changes(base, components, first, sets, rank_all, least_step)


def _select_on_device(
    base: Tensor,
    components: Sequence[ComponentTile],
    first: int,
    sets: str,
    rank_all: bool,
    least_step: int,
) -> Changes:
    import torch

    from patchc.kernels.safepatching_merge import triton as device

    entries, lead = base.numel(), first % 4
    count = launch.blocks(entries + lead)

    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=base.device)

    pair = (components[0], components[-1])
    tops = [_top_argument(one) for one in pair]
    tally = torch.zeros((device.ROWS.value, count), dtype=torch.int32, device=base.device)
    tally[device.FAULTS.value :] = device.NO_FAULT.value
    staged = integers(count * launch.BLOCK), integers(count * launch.BLOCK)
    before = torch.zeros((2, count), dtype=torch.int64, device=base.device)
    draws = [launch.draw_arguments(one.retention) for one in pair]
    numbers = [(one.scale, *draw[:3]) for one, draw in zip(pair, draws, strict=True)]
    arguments = (
        launch.words_of(base),
        *(launch.words_of(one.tuned) for one in pair),
        *(top for top, _ in tops),
        *(cut for _, cut in tops),
        *(before, tally, *staged, least_step, entries, first),
        *(number for values in numbers for number in values),
    )
    constants = (
        launch.code_of(base),
        *(launch.code_of(one.tuned) for one in pair),
        *(not isinstance(one.top, RankedScores) for one in pair),
        *(draw[3] for draw in draws),
        *(len(components), sets, rank_all, lead),
    )
    launch.launch(device.select, count, *arguments, *constants, False)
    ranked = [(n, p.top) for n, p in enumerate(components) if isinstance(p.top, RankedScores)]
    for number, top in ranked:
        before[number] = ties_before(tally[number], top.taken)
    if ranked:
        launch.launch(device.select, count, *arguments, *constants, True)
    ends = tally[device.CHANGES.value].cumsum(0)
    found = int(ends[-1])
    positions, steps = integers(found), integers(found)
    launch.launch(device.gather, count, *staged, ends, positions, steps)
    return _changes(tally, len(components), positions, steps)


def _changes(tally: Tensor, components: int, positions: Tensor, steps: Tensor) -> Changes:
    from patchc.kernels.safepatching_merge import triton as device

    sums = tally[: device.FAULTS.value].sum(1).tolist()
    tops_at, applied_at = device.TOPS.value, device.APPLIED.value
    first_faults = tally[device.FAULTS.value :].amin(1).tolist()
    if components == 1:
        first_faults.pop(1)
    faults = [(n, place) for n, place in enumerate(first_faults) if place != device.NO_FAULT.value]
    return Changes(
        positions,
        steps,
        tuple(sums[tops_at : tops_at + 2 * components - 1]),
        tuple(sums[applied_at : applied_at + components]),
        faults[0] if faults else None,
    )


def _top_argument(one: ComponentTile) -> tuple[Tensor, Tensor]:
    import torch

    if isinstance(one.top, RankedScores):
        return launch.words_of(one.top.scores), one.top.cut
    mask = one.top.view(-1).view(torch.int8)
    return mask, mask
