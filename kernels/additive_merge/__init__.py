"""Scaled deltas of an additive patch, added to a tensor in place, and taken back.

fp32(fp32(word + α · δ_SE) + β · δ_OSM) at the words that a component touches, each product and sum
rounded to fp32, then rounded once to the tensor's dtype (``formats/SPEC.md``, section 6.3). The
sum cannot be undone by subtraction: the words that were there are kept, and put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patchc.errors import MismatchError, NumericError, UnsupportedInputError
from patchc.kernels.launch import (
    BLOCK,
    MOST_ENTRIES,
    OPTIONS,
    blocks,
    check_entries,
    code_of,
    launching_on,
    on_device,
    words_of,
)
from patchc.kernels.safepatching_merge.reference import add_scaled_entries, load_fp32, round_masked

if TYPE_CHECKING:
    from torch import Tensor

MOST_COMPONENTS = 2
"""Components that one call adds."""


@dataclass(frozen=True)
class DeltaEntries:
    """One component's entries in one tensor.

    Attributes:
        positions: int32, ascending and distinct, inside the tensor; the caller has checked them.
        deltas: fp32 or bf16, one a position.
        scale: α or β; an fp32 value.
    """

    positions: Tensor
    deltas: Tensor
    scale: float


def add_deltas(tensor: Tensor, parts: Sequence[DeltaEntries]) -> tuple[Tensor, ...]:
    """Add one or two components to a tensor, in place, in one launch.

    Args:
        tensor: any dtype that merges, contiguous.
        parts: components in the order of the sum, with deltas of one dtype, on its device.

    Returns:
        The words that were there, one tensor a component, for :func:`put_back`.

    Raises:
        NumericError: a sum is not finite or too large for the dtype; the tensor is as it was.
        MismatchError: numbers of entries or dtypes of deltas differ, or strides are not plain.
        UnsupportedInputError: there are more than two components, or a dtype does not merge.
    """
    import torch

    if not 1 <= len(parts) <= MOST_COMPONENTS:
        raise UnsupportedInputError(f"{len(parts)} components; one or two can be added")
    if len({part.deltas.dtype for part in parts}) > 1:
        raise MismatchError("the components' deltas are of different dtypes; convert them to fp32")
    for part in parts:
        check_entries(part.positions.numel(), deltas=part.deltas)
    words = words_of(tensor)
    saved = tuple(torch.empty_like(words[: part.positions.numel()]) for part in parts)
    fault = torch.full((1,), MOST_ENTRIES, dtype=torch.int32, device=tensor.device)
    if on_device(tensor):
        _add_on_device(words, code_of(tensor), parts, saved, fault)
    else:
        _add_in_numpy(words, code_of(tensor), parts, saved, fault)
    if int(fault) != MOST_ENTRIES:
        put_back(tensor, parts, saved)
        raise NumericError(
            f"flat index {int(fault)}: the merged value is not finite or too large for "
            f"{tensor.dtype}; lower alpha and beta"
        )
    return saved


def put_back(tensor: Tensor, parts: Sequence[DeltaEntries], saved: Sequence[Tensor]) -> None:
    """Undo :func:`add_deltas`, in place, with the words that it returned."""
    words = words_of(tensor)
    # A word that both components touch was saved with the first, which is put back last.
    for part, before in reversed(list(zip(parts, saved, strict=True))):
        count = part.positions.numel()
        if on_device(tensor):
            from patchc.kernels.additive_merge import triton as device

            with launching_on(tensor):
                device.put_back[(blocks(count),)](
                    words, part.positions, before, count, BLOCK, **OPTIONS
                )
        else:
            words.numpy()[part.positions.numpy()] = before.numpy()


def _add_on_device(
    words: Tensor,
    code: int,
    parts: Sequence[DeltaEntries],
    saved: Sequence[Tensor],
    fault: Tensor,
) -> None:
    from patchc.kernels.additive_merge import triton as device

    lists = [
        (part.positions, words_of(part.deltas), kept, part.positions.numel())
        for part, kept in zip(parts, saved, strict=True)
    ]
    pair = (*lists[0], *lists[-1])
    programs = sum(-(-part.positions.numel() // BLOCK) for part in parts)
    if not programs:
        return
    with launching_on(words):
        device.add_deltas[(programs,)](
            words,
            *pair,
            fault,
            *(parts[0].scale, parts[-1].scale),
            *(code, code_of(parts[0].deltas), len(parts), BLOCK),
            **OPTIONS,
        )


def _add_in_numpy(
    words: Tensor,
    code: int,
    parts: Sequence[DeltaEntries],
    saved: Sequence[Tensor],
    fault: Tensor,
) -> None:
    flat = words.numpy().view(f"u{words.element_size()}")
    mask = np.zeros(flat.size, np.bool_)
    for part, kept in zip(parts, saved, strict=True):
        positions = part.positions.numpy()
        mask[positions] = True
        kept.numpy()[:] = words.numpy()[positions]
    merged = np.zeros(flat.size, np.float32)
    load_fp32(flat, code, mask, merged)
    for part in parts:
        positions = part.positions.numpy().view(np.uint32)
        deltas = part.deltas.float().numpy()
        add_scaled_entries(positions, deltas, np.float32(part.scale), merged)
    result = np.empty_like(flat)
    place = round_masked(flat, code, mask, merged, result)
    if place >= 0:
        fault.fill_(place)
    else:
        flat[:] = result
