"""Finds the entries of task vectors that a method retains, as bitmasks chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from patchc.checkpoint import TensorInfo
from patchc.chunks import Chunk, grid
from patchc.kernels.bitmask import Bitmask, words_for
from patchc.kernels.philox import KEEP_ALL, Retention, retention_stream, retention_threshold
from patchc.kernels.topk.sampled import mark_retained
from patchc.recipe import MergeRecipe
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.runtime import Runtime
from patchc.selection.task_merge.task_vectors import TaskVector
from patchc.selection.topk.histogram_search import ScoredTensor
from patchc.selection.topk.search import TopSearch

ChunkBitmask = Callable[[Chunk], Bitmask]
"""Gives a chunk's retained entries, not to be changed; called from worker threads."""

PendingBitmasks = Callable[[], list[ChunkBitmask]]
"""Waits for the bitmasks of several tensors."""


def retain_entries(
    vector: TaskVector,
    recipe: MergeRecipe,
    tensors: Sequence[TensorInfo],
    chunk_words: int,
    runtime: Runtime,
    words: int,
    ranks: Ranks = ALONE,
) -> PendingBitmasks:
    """Begin to find the entries of τ that are retained in several tensors; some may be zero.

    DARE draws them. Other methods retain the floor(density · words) entries of largest |τ|, over
    all tensors together; equal ones go to the earlier tensor, then to the lower flat index.

    All ``ranks`` search together; ``words`` are those of all their tensors.

    Returns:
        A function that waits for the bitmasks. It raises a NumericError with the tensor and the
        flat index if a value is not finite.
    """
    if recipe.method == "dare" or recipe.share in (0, 1):
        threshold = retention_threshold(recipe.share)
        streams = [retention_stream(vector.name, tensor.name) for tensor in tensors]
        return lambda: [
            partial(_drawn, Retention(recipe.seed, stream, threshold)) for stream in streams
        ]
    everything = Retention(0, 0, KEEP_ALL)
    scored = [
        ScoredTensor(
            f"{vector.tuned.path}: tensor {tensor.name!r}",
            partial(vector.read_magnitudes, tensor),
            grid(tensor.words, chunk_words),
            everything,
        )
        for tensor in tensors
    ]
    search = TopSearch(scored, math.floor(recipe.share * words), runtime, ranks)
    return lambda: [
        partial(top.bitmask, read=one.read, buffer=vector.buffers.mask)
        for one, top in zip(scored, search.result(), strict=True)
    ]


def _drawn(retention: Retention, chunk: Chunk) -> Bitmask:
    bitmask: Bitmask = np.empty(words_for(chunk.count), np.uint32)
    mark_retained(bitmask, chunk.count, chunk.first, retention)
    return bitmask
