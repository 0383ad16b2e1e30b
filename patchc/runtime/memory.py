"""Computes how many threads fit into a memory budget."""

from __future__ import annotations

import os
from dataclasses import dataclass

from patchc.checkpoint import Checkpoint
from patchc.errors import UsageError
from patchc.formats import Patch
from patchc.sides import OTHER

RUNTIME_BYTES = 160 << 20
"""Memory of the process without buffers: the interpreter, imports and compiled loops."""

COPY_BYTES = 300 * 10**6
"""Bytes that a process may take that changes or compares models, if the caller names no budget."""

_BUILD_BYTES = 500 * 10**6

_THREAD_BYTES = 2 << 20  # the stack and the tables of a codec
_CHANGE_BYTES = 12  # a position and a step
_MERGED_WORD_BYTES = 5  # fp32 and a mask, for additive values
_CODED_WORD_BYTES = 40  # positions, steps and their coding, if every word changes
_FILE_COPIES = 4  # the content and the middle, before and after


@dataclass(frozen=True)
class MemoryNeed:
    """The memory that some work takes.

    Attributes:
        work: names the work in messages.
        thread_bytes: buffers of one thread.
        shared_bytes: memory that all threads share.
        default_budget: bytes that the process may take if the caller names no budget.
    """

    work: str
    thread_bytes: int
    shared_bytes: int
    default_budget: int

    def threads_within(
        self, threads: int | None, max_memory: int | None, neighbours: int = 1
    ) -> int:
        """How many threads to run.

        Args:
            threads: the most that may run; None means one per core.
            max_memory: bytes that the process may take. None means no limit if ``threads`` is
                given, else the default budget, with at least one thread.
            neighbours: processes that share this machine's cores; each has a budget of its own.

        Raises:
            UsageError: one thread is too much for ``max_memory``.
        """
        if max_memory is None and threads is not None:
            return threads
        fixed = RUNTIME_BYTES + self.shared_bytes
        budget = self.default_budget if max_memory is None else max_memory
        fitting = (budget - fixed) // self.thread_bytes
        if fitting < 1 and max_memory is not None:
            raise UsageError(
                f"max_memory is {max_memory:,} bytes, and {self.work} needs at least "
                f"{fixed + self.thread_bytes:,}; allow it more memory"
            )
        cores = max(1, usable_cores() // neighbours)
        return min(cores if threads is None else threads, max(fitting, 1))


def need_to_patch(patch: Patch, shared_bytes: int = 0, copies: int = 1) -> MemoryNeed:
    """The memory for a pass over a model that applies or checks a patch.

    ``shared_bytes`` are added, to the default budget as well. Each thread takes ``copies`` of a
    chunk.
    """
    index = patch.index
    word_bytes = max((record.dtype.word_bytes for record in index.records), default=1)
    words = min(patch.chunk_words, max((record.words for record in index.records), default=1))
    per_word = (copies if index.keeps_tensors else 2) * word_bytes
    per_word += _MERGED_WORD_BYTES if patch.additive else 0
    changes = int(index.entries.max(initial=0)) * _CHANGE_BYTES + int(index.lengths.max(initial=0))
    largest = max((max(map(file.size_on, OTHER)) for file in index.files), default=0)
    return MemoryNeed(
        str(patch.path),
        per_word * words + changes + _THREAD_BYTES,
        _FILE_COPIES * largest + shared_bytes,
        COPY_BYTES + shared_bytes,
    )


def need_to_compare(base: Checkpoint, chunk_words: int) -> MemoryNeed:
    """The memory for coding the difference of two models; every word may differ."""
    word_bytes = max((tensor.dtype.word_bytes for tensor in base.tensors.values()), default=1)
    each = (2 * word_bytes + _CODED_WORD_BYTES) * largest_chunk(base, chunk_words) + _THREAD_BYTES
    return MemoryNeed(f"a comparison with {base.path}", each, 0, COPY_BYTES)


def need_to_build(
    base: Checkpoint, chunk_words: int, word_bytes: int, shared_bytes: int = 0
) -> MemoryNeed:
    """The memory for a build whose buffers take ``word_bytes`` for each word of a chunk.

    ``shared_bytes`` are added, to the default budget as well.
    """
    each = word_bytes * largest_chunk(base, chunk_words) + _THREAD_BYTES
    return MemoryNeed(f"a build on {base.path}", each, shared_bytes, _BUILD_BYTES + shared_bytes)


def largest_chunk(model: Checkpoint, chunk_words: int) -> int:
    """Words in the largest chunk of a model's tensors."""
    return min(chunk_words, max((t.words for t in model.tensors.values()), default=1))


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
