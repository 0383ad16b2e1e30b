"""Which entries of task vectors a method keeps, as marks chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from patchc.buffers import scratch
from patchc.checkpoint import TensorInfo
from patchc.chunks import Chunk, grid
from patchc.kernels.bitmask import Bitmask, pack, words_for
from patchc.kernels.philox.cpu import KEEP_ALL, Retention, retention_stream, retention_threshold
from patchc.kernels.topk.sampled import mark_retained
from patchc.recipe import MergeRecipe
from patchc.runtime.ranks import ALONE, Ranks
from patchc.runtime.workers import Workers
from patchc.selection.task_merge.task_vectors import TaskVector
from patchc.selection.topk.histogram_search import ScoredTensor, TopSet
from patchc.selection.topk.search import TopSearch

Marker = Callable[[Chunk], Bitmask]
"""Gives the marks of a chunk's kept entries, not to be changed; called from worker threads."""

Kept = Callable[[], list[Marker]]
"""Waits for the markers of several tensors."""


def keep_entries(
    vector: TaskVector,
    recipe: MergeRecipe,
    tensors: Sequence[TensorInfo],
    chunk_words: int,
    workers: Workers,
    words: int,
    ranks: Ranks = ALONE,
) -> Kept:
    """Begin to find which entries of τ are kept in each of several tensors; zeros may be marked.

    By draws for dare; else those of largest |τ|, floor(density · words) of the tensors together;
    equal ones go to the earlier tensor, then to the lower flat index.

    Args:
        vector, recipe, tensors, chunk_words, workers: which, how, and in chunks of how many words.
        words: of all the tensors that are taken together.
        ranks: the ranks that have them.

    Returns:
        What waits for them, and raises a NumericError that names the tensor and the flat index
        where a value is not finite.
    """
    if recipe.method == "dare" or recipe.share in (0, 1):
        drawn = [partial(_mark_drawn, _draws(vector, recipe, tensor.name)) for tensor in tensors]
        return lambda: list(drawn)
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
    search = TopSearch(scored, math.floor(recipe.share * words), workers, ranks)
    return lambda: [
        partial(_mark_top, vector, tensor, top)
        for tensor, top in zip(tensors, search.result(), strict=True)
    ]


def _draws(vector: TaskVector, recipe: MergeRecipe, tensor: str) -> Retention:
    stream = retention_stream(vector.name, tensor)
    return Retention(recipe.seed, stream, retention_threshold(recipe.share))


def _mark_drawn(retention: Retention, chunk: Chunk) -> Bitmask:
    marks: Bitmask = np.empty(words_for(chunk.count), np.uint32)
    mark_retained(marks, chunk.count, chunk.first, retention)
    return marks


def _mark_top(vector: TaskVector, tensor: TensorInfo, top: TopSet, chunk: Chunk) -> Bitmask:
    if top.marks is not None:
        return top.marks[chunk.number]
    mask = scratch("mask", chunk.count, np.bool_)
    top.mark(vector.read_magnitudes(tensor, chunk), chunk, mask)
    return pack(mask)
