"""Scaled deltas of an additive patch, added to a tensor in place, and taken back.

fp32(fp32(word + α · δ_SE) + β · δ_OSM) at the words that a component touches, each product and sum
rounded to fp32, then rounded once to the tensor's dtype (``formats/SPEC.md``, section 6.3). The
sum cannot be undone by subtraction: the words that were there are saved, and put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patchc.errors import MismatchError, NumericError, UnsupportedInputError
from patchc.kernels import launch

if TYPE_CHECKING:
    from torch import Tensor

MOST_COMPONENTS = 2
"""Components that one call adds."""


@dataclass(frozen=True)
class DeltaEntries:
    """One component's entries in one tensor.

    Attributes:
        positions: int32, ascending and distinct, inside the tensor; the caller has checked them.
        deltas: fp32 or bf16, one for each position.
        scale: α or β; an fp32 value.
    """

    positions: Tensor
    deltas: Tensor
    scale: float


def add_deltas(tensor: Tensor, components: Sequence[DeltaEntries]) -> tuple[Tensor, ...]:
    """Add one or two components to a tensor, in place, in one launch.

    Args:
        tensor: any dtype that merges, contiguous.
        components: components in the order of the sum, with deltas of one dtype, on its device.

    Returns:
        The words that were there, one tensor for each component, for :func:`put_back`.

    Raises:
        NumericError: a sum is not finite or too large for the dtype; the tensor is as it was.
        MismatchError: numbers of entries or dtypes of deltas differ, or strides are not plain.
        UnsupportedInputError: there are more than two components, or a dtype does not merge.
    """
    import torch

    if not 1 <= len(components) <= MOST_COMPONENTS:
        raise UnsupportedInputError(f"{len(components)} components; one or two can be added")
    if len({one.deltas.dtype for one in components}) > 1:
        raise MismatchError("the components' deltas are of different dtypes; convert them to fp32")
    for one in components:
        launch.check_entries(one.positions.numel(), deltas=one.deltas)
    words = launch.words_of(tensor)
    saved = tuple(torch.empty_like(words[: one.positions.numel()]) for one in components)
    add = _add_on_device if launch.on_device(tensor) else _add_on_cpu
    fault = add(words, launch.code_of(tensor), components, saved)
    if fault >= 0:
        put_back(tensor, components, saved)
        raise NumericError(
            f"flat index {fault}: the merged value is not finite or too large for "
            f"{tensor.dtype}; lower alpha and beta"
        )
    return saved


def put_back(tensor: Tensor, components: Sequence[DeltaEntries], saved: Sequence[Tensor]) -> None:
    """Undo :func:`add_deltas`, in place, with the words that it returned."""
    words = launch.words_of(tensor)
    # A word that both components touch was saved with the first, which is put back last.
    for one, before in reversed(list(zip(components, saved, strict=True))):
        count = one.positions.numel()
        if launch.on_device(tensor):
            from patchc.kernels.additive_merge import triton as device

            arguments = words, one.positions, before, count
            launch.launch(device.put_back, launch.blocks(count), *arguments)
        else:
            words.numpy()[one.positions.numpy()] = before.numpy()


def _add_on_device(
    words: Tensor, code: int, components: Sequence[DeltaEntries], saved: Sequence[Tensor]
) -> int:
    """Add, and give the first position whose value does not fit, or −1."""
    import torch

    from patchc.kernels.additive_merge import triton as device

    lists = [
        (one.positions, launch.words_of(one.deltas), before, one.positions.numel())
        for one, before in zip(components, saved, strict=True)
    ]
    fault = torch.full((1,), launch.MOST_ENTRIES, dtype=torch.int32, device=words.device)
    programs = sum(-(-one.positions.numel() // launch.BLOCK) for one in components)
    if not programs:
        return -1
    scales = components[0].scale, components[-1].scale
    constants = code, launch.code_of(components[0].deltas), len(components)
    arguments = words, *lists[0], *lists[-1], fault, *scales, *constants
    launch.launch(device.add_deltas, programs, *arguments)
    place = int(fault)
    return -1 if place == launch.MOST_ENTRIES else place


def _add_on_cpu(
    words: Tensor, code: int, components: Sequence[DeltaEntries], saved: Sequence[Tensor]
) -> int:
    from patchc.kernels.additive_merge.cpu import add_entries

    array = words.numpy()
    entries = [
        (one.positions.numpy().view("u4"), one.deltas.float().numpy(), one.scale)
        for one in components
    ]
    for before, (positions, _, _) in zip(saved, entries, strict=True):
        before.numpy()[:] = array[positions]
    return add_entries(array.view(f"u{array.itemsize}"), code, entries)
