"""How many threads a budget of memory allows: the buffers of all of them, and all else there is."""

from __future__ import annotations

from patchc.checkpoint import Checkpoint
from patchc.errors import UsageError
from patchc.formats import Patch
from patchc.runtime.workers import usable_cores
from patchc.sides import OTHER

RUNTIME_BYTES = 160 << 20
"""Memory of the process before it opens a buffer: the interpreter, imports and compiled loops."""

COPY_BYTES = 300 * 10**6
"""The budget of commands that read one model or two, where none is given."""

BUILD_BYTES = 500 * 10**6
"""The budget of a build, where none is given."""

_THREAD_BYTES = 2 << 20  # its stack, and the tables of a codec
_CHANGE_BYTES = 12  # a position and a step
_MERGED_WORD_BYTES = 5  # fp32 and a mask, for additive values
_CODED_WORD_BYTES = 40  # positions, steps and what codes them, where every word changes
_FILE_COPIES = 4  # the content before and after, and both middles


def threads_within(
    threads: int | None,
    max_memory: int | None,
    usual: int,
    each: int,
    shared: int = 0,
    what: str = "this",
    neighbours: int = 1,
) -> int:
    """How many threads to run.

    Args:
        threads: as many as asked for, or as few as fit; None means one a core.
        max_memory: bytes that the process may take. None means ``usual``, where ``threads`` is None
            too; one thread then runs even where that is too little.
        usual: the budget where none is given.
        each: bytes of one thread's buffers.
        shared: bytes needed besides.
        what: names the work, for the message.
        neighbours: processes that share this machine's cores; the budget is each one's own.

    Raises:
        UsageError: one thread is too much for ``max_memory``.
    """
    if max_memory is None and threads is not None:
        return threads
    fitting = ((max_memory or usual) - RUNTIME_BYTES - shared) // each
    if fitting < 1 and max_memory is not None:
        raise UsageError(
            f"max_memory is {max_memory:,} bytes, and {what} needs at least "
            f"{RUNTIME_BYTES + shared + each:,}; allow it more memory"
        )
    cores = max(1, usable_cores() // neighbours)
    return min(cores if threads is None else threads, max(fitting, 1))


def threads_to_patch(
    patch: Patch,
    threads: int | None,
    max_memory: int | None,
    beside: int = 0,
    neighbours: int = 1,
) -> int:
    """The same for reading a model chunk by chunk and changing it as a patch says.

    ``beside`` bytes are needed besides, and come on top of the usual budget.

    Raises:
        UsageError: one thread is too much; names the patch.
    """
    index = patch.index
    word_bytes = max((record.dtype.word_bytes for record in index.records), default=1)
    words = min(patch.chunk_words, max((record.words for record in index.records), default=1))
    per_word = (1 if index.keeps_tensors else 2) * word_bytes
    per_word += _MERGED_WORD_BYTES if patch.additive else 0
    changes = int(index.entries.max(initial=0)) * _CHANGE_BYTES + int(index.lengths.max(initial=0))
    largest = max((max(map(file.size_on, OTHER)) for file in index.files), default=0)
    each = per_word * words + changes + _THREAD_BYTES
    shared = _FILE_COPIES * largest + beside
    own = COPY_BYTES + beside
    return threads_within(threads, max_memory, own, each, shared, str(patch.path), neighbours)


def threads_to_compare(
    base: Checkpoint,
    chunk_bits: int,
    threads: int | None,
    max_memory: int | None,
    neighbours: int = 1,
) -> int:
    """The same for coding what differs between two models, where every word may.

    Raises:
        UsageError: one thread is too much; names the model.
    """
    words = largest_chunk(base, chunk_bits)
    word_bytes = max((tensor.dtype.word_bytes for tensor in base.tensors.values()), default=1)
    each = (2 * word_bytes + _CODED_WORD_BYTES) * words + _THREAD_BYTES
    what = f"a comparison with {base.path}"
    return threads_within(threads, max_memory, COPY_BYTES, each, 0, what, neighbours)


def threads_to_build(
    base: Checkpoint,
    chunk_bits: int,
    word_bytes: int,
    threads: int | None,
    max_memory: int | None,
    beside: int = 0,
    neighbours: int = 1,
) -> int:
    """The same for a build whose buffers take ``word_bytes`` for each word of a chunk.

    ``beside`` bytes are needed besides, and come on top of the usual budget.

    Raises:
        UsageError: one thread is too much; names the model.
    """
    each = word_bytes * largest_chunk(base, chunk_bits) + _THREAD_BYTES
    what = f"a build on {base.path}"
    own = BUILD_BYTES + beside
    return threads_within(threads, max_memory, own, each, beside, what, neighbours)


def largest_chunk(model: Checkpoint, chunk_bits: int) -> int:
    """Words in the largest chunk of a model's tensors."""
    return min(1 << chunk_bits, max((t.words for t in model.tensors.values()), default=1))
