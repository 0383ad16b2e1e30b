"""Exact top-k of scores in tensors: radix select, with no sort and no wait for the device.

The selection is that of :mod:`patchc.kernels.topk.cpu`. Scores are read three times: twice into
histograms of 65536 and 32768 bins, once to mark the entries. Where a run of equal scores straddles
the cut, blocks that hold some of the run are read once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchc.errors import MismatchError, NumericError, UnsupportedInputError
from patchc.kernels import launch
from patchc.kernels.philox import Retention
from patchc.kernels.topk import cpu as topk
from patchc.kernels.topk.cpu import HIGH_BINS, LOW_BINS, NOTHING, Bits, TopThreshold

if TYPE_CHECKING:
    from torch import Tensor

_REPLICAS = 8
_NO_FAULT = 1 << 62


class TopSearch:
    """The cut of the ``count`` highest of all retained scores that pass by, tile after tile.

    Give every tile to :meth:`count_high`, call :meth:`narrow`, and give every tile to
    :meth:`count_low`; the order does not matter, and tiles may be of different tensors. Memory is
    some megabytes, whatever the tensors.

    Args:
        count: entries to take; all retained ones where there are fewer.
        device: where the tiles are.
    """

    def __init__(self, count: int, device: str | None = None) -> None:
        import torch

        def integers(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self._high_bins = integers(_REPLICAS, HIGH_BINS)
        self._low_bins = integers(_REPLICAS, LOW_BINS)
        self._fault = integers(1) + _NO_FAULT
        self._count = integers(1) + count
        self._high = integers(1)
        self._left = integers(1)

    def count_high(self, scores: Tensor, first: int, retention: Retention) -> None:
        """Take a tile into account, first round.

        Args:
            scores: fp32, contiguous.
            first: flat index of its first score; a multiple of 4.
            retention: which entries are ranked.
        """
        if launch.on_device(scores):
            self._launch_count(self._high_bins, scores, first, retention, False)
            return
        fault = topk.count_high(_keys(scores), first, retention, self._high_bins[0].numpy())
        if fault >= 0:
            self._fault.clamp_(max=first + fault)

    def narrow(self) -> None:
        """Between the rounds: find the upper half of the cut's key."""
        totals = self._high_bins.sum(0)
        self._count.clamp_(max=totals.sum())
        self._high, above = _find_bin(totals, self._count)
        self._left = self._count - above

    def count_low(self, scores: Tensor, first: int, retention: Retention) -> None:
        """Take a tile into account, second round; as :meth:`count_high`."""
        if launch.on_device(scores):
            self._launch_count(self._low_bins, scores, first, retention, True)
            return
        bins, high = self._low_bins[0].numpy(), int(self._high)
        topk.count_low(_keys(scores), first, retention, high, bins)

    def _launch_count(
        self, bins: Tensor, scores: Tensor, first: int, retention: Retention, lower: bool
    ) -> None:
        from patchc.kernels.topk.triton import count_halves

        arguments = self._high, bins, self._fault
        _launch(count_halves, scores, arguments, first, retention, lower, _REPLICAS)

    def cut(self) -> Tensor:
        """After both rounds: key, ties and available ties, as :class:`TopThreshold`, in int64."""
        import torch

        totals = self._low_bins.sum(0)
        low, above = _find_bin(totals, self._left)
        found = torch.cat([self._high * LOW_BINS + low, self._left - above, totals[low]])
        return torch.where(self._count > 0, found, cut_of(NOTHING, found.device.type))

    def check(self, source: str) -> None:
        """Wait for the device and check that all scores are finite and none is negative.

        Raises:
            NumericError: one is not; gives ``source`` and the least flat index.
        """
        _check_fault(self._fault, f"{source}: ")


def top_mask(
    scores: Tensor,
    count: int,
    retention: Retention,
    row_length: int | None = None,
    first: int = 0,
) -> Tensor:
    """The mask of the ``count`` highest retained scores, in the tensor or in each of its rows.

    Args:
        scores: fp32, contiguous; finite and none negative.
        count: entries to take; all retained ones where there are fewer.
        retention: which entries may be taken, by flat index.
        row_length: entries of a row; without it, the tensor is one.
        first: flat index of the first score; a multiple of the row, or without rows of 4.

    Returns:
        bool, in the shape of the scores. Equal scores go to the lower flat index.

    Raises:
        MismatchError: the rows do not fill the tensor, or it is not contiguous.
        NumericError: a score is negative or not finite.
        UnsupportedInputError: the scores are not fp32.
    """
    import torch

    mask = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    if row_length is not None:
        _mark_rows(scores, count, retention, row_length, first, mask)
        return mask
    search = TopSearch(count, str(scores.device))
    search.count_high(scores, first, retention)
    search.narrow()
    search.count_low(scores, first, retention)
    cut = search.cut()
    mark_top(scores, first, retention, cut, torch.zeros_like(cut[:1]), mask)
    search.check("top-k")
    return mask


def mark_top(
    scores: Tensor, first: int, retention: Retention, cut: Tensor, taken: Tensor, mask: Tensor
) -> None:
    """Write into ``mask`` which entries of a tile are in the top set.

    Args:
        scores, first, retention: as in :meth:`TopSearch.count_high`.
        cut: as :meth:`TopSearch.cut` gives it.
        taken: one int64: entries equal to the key in earlier tiles; this tile's are added to it.
        mask: bool, contiguous, as long as the scores.
    """
    if not launch.on_device(scores):
        keys = _keys(scores)
        top = TopThreshold(*cut.tolist())
        left = max(0, top.ties - int(taken))
        topk.mark_top(keys, first, retention, top, left, mask.view(-1).numpy())
        taken += topk.count_ties(keys, first, retention, top)
        return
    import torch

    from patchc.kernels.topk.triton import mark

    count = launch.blocks(scores.numel() + first % 4)
    ties = torch.empty(count, dtype=torch.int32, device=scores.device)
    members = mask.view(-1).view(torch.int8)
    _launch(mark, scores, (cut, ties, ties, members), first, retention, False)
    before = ties_before(ties, taken)
    _launch(mark, scores, (cut, ties, before, members), first, retention, True)


def _launch(
    kernel: Any,
    scores: Tensor,
    arguments: tuple[Tensor, ...],
    first: int,
    retention: Retention,
    *constants: int,
) -> None:
    """Launch one of the kernels that take a tile of scores."""
    *draw, drawn = launch.draw_arguments(retention)
    lead = first % 4
    tile = first, scores.numel(), *draw, lead, drawn, *constants
    launch.launch(kernel, launch.blocks(scores.numel() + lead), _bits(scores), *arguments, *tile)


def ties_before(ties: Tensor, taken: Tensor) -> Tensor:
    """Entries equal to the key before each block; adds all of them to ``taken``."""
    ends = ties.cumsum(0)
    before: Tensor = ends - ties + taken
    taken += ends[-1]
    return before


def cut_of(threshold: TopThreshold, device: str) -> Tensor:
    """A cut that is known beforehand, as a tensor."""
    import torch

    values = [threshold.key, threshold.ties, threshold.available_ties]
    return torch.tensor(values, dtype=torch.int64, device=device)


def _mark_rows(
    scores: Tensor, count: int, retention: Retention, row_length: int, first: int, mask: Tensor
) -> None:
    import torch

    bits = _bits(scores)
    if row_length < 1 or scores.numel() % row_length:
        raise MismatchError(f"{scores.numel()} scores do not fill rows of {row_length}")
    rows = scores.numel() // row_length
    fault = torch.full((1,), _NO_FAULT, dtype=torch.int64, device=scores.device)
    if not launch.on_device(scores):
        keys = _keys(scores)
        found = topk.find_fault(keys)
        if found >= 0:
            fault.fill_(first + found)
        else:
            topk.mark_top_rows(keys, first, row_length, count, retention, mask.view(-1).numpy())
    elif rows:
        from patchc.kernels.topk.triton import mark_rows

        members = mask.view(-1).view(torch.int8)
        sizes = first, row_length, count, *launch.draw_arguments(retention)
        tiles = launch.blocks(row_length + 3)
        launch.launch(mark_rows, rows, bits, members, fault, *sizes, tiles)
    _check_fault(fault, "")


def _check_fault(fault: Tensor, prefix: str) -> None:
    place = int(fault)
    if place != _NO_FAULT:
        raise NumericError(
            f"{prefix}the score at flat index {place} is negative or not finite; scores must be "
            "neither"
        )


def _bits(scores: Tensor) -> Tensor:
    if str(scores.dtype) != "torch.float32":
        raise UnsupportedInputError(f"scores of {scores.dtype}; they must be torch.float32")
    return launch.words_of(scores)


def _keys(scores: Tensor) -> Bits:
    return _bits(scores).numpy().view("u4")


def _find_bin(bins: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`patchc.kernels.topk.cpu.find_bin`, without waiting; ``count`` may be 0."""
    import torch

    from_top = bins.flip(0).cumsum(0)
    steps = torch.searchsorted(from_top, count)
    above = torch.where(steps > 0, from_top[(steps - 1).clamp_(min=0)], 0)
    return len(bins) - 1 - steps, above
