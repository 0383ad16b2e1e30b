"""The ways to derive, and the choice of one within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from patchc.derivation.adamw import Kind
from patchc.derivation.budget import Budget
from patchc.derivation.memory_plan import Need, Work, need
from patchc.derivation.trainer import Layout
from patchc.errors import StorageError, UsageError

_NEXT_TIME = 64 << 20
"""By how much the memory of a process that has not begun may differ from one to the next."""


def ways(work: Work, optimizers: Sequence[Kind]) -> Iterator[Need]:
    """Yield the ways to derive, from the one with the most memory to the one with the least.

    Of two optimizers, the first is preferred in memory, and the second only for want of disk.
    """
    for optimizer in optimizers[:1]:
        for keeps in (True, False):
            yield need(work, Layout(keeps=keeps), optimizer)
    for optimizer in optimizers:
        streamed = Layout(streams=True, keeps=False)
        yield need(work, streamed, optimizer)
        streamed = replace(streamed, states_in_scratch=True)
        yield need(work, streamed, optimizer)
        streamed = replace(streamed, holds_head=False)
        yield need(work, streamed, optimizer)
        yield need(work, replace(streamed, ahead=False), optimizer)


def choose(found: Iterable[Need], budget: Budget) -> Need:
    """Choose the first way that fits into a budget.

    Raises:
        UsageError: none fits into the memory; says what suffices, in the next process too.
        StorageError: those that fit need more scratch files than there is room for.
    """
    short_of_room = least = None
    for way in found:
        memory = way.memory_bytes + (way.scratch_bytes if budget.scratch_is_memory else 0)
        if memory > budget.memory or way.device_bytes > budget.device:
            taken = way.device_bytes, memory
            least = taken if least is None else min(least, taken)
        elif way.scratch_bytes > budget.room:
            short_of_room = min(way.scratch_bytes, short_of_room or way.scratch_bytes)
        else:
            return way
    if short_of_room is not None:
        raise StorageError(
            f"within this memory the derivation needs {short_of_room:,} bytes of scratch files, "
            f"and {budget.room:,} are free for them in {budget.scratch}; "
            "free space, name a folder on another disk with scratch, or allow more "
            "memory with max_memory"
        )
    assert least is not None
    suffices, of_device = least[1] + _NEXT_TIME, least[0]
    device = f" and {of_device:,} bytes of the device's (max_device_memory)" if of_device else ""
    raise UsageError(
        f"the derivation needs at least {suffices:,} bytes of memory (max_memory){device}, and may "
        f"take {budget.memory:,}"
        + (f" and {budget.device:,}" if of_device else "")
        + "; allow more, take shorter conversations or a smaller batch"
        + (", or name a folder on a disk with scratch" if budget.scratch_is_memory else "")
    )
