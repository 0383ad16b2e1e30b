"""Writes the folder of a compact component: the retained entries of tuned weights and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from patchc.checkpoint import Checkpoint
from patchc.checkpoint.refuse import COMPONENT_FILE, COMPONENT_FORM
from patchc.chunks import grid
from patchc.derivation.derive_options import DeriveOptions, Direction
from patchc.derivation.held_tensors import held_tensors
from patchc.derivation.output import write_json, write_shards
from patchc.kernels.philox import Retention
from patchc.kernels.retained_words import BLOCK_WORDS, count_retained, take_retained
from patchc.recipe.safepatching import Score
from patchc.selection.compact.description import (
    COUNTS,
    VALUES,
    Description,
    HeldTensor,
    compact_scores_stem,
)
from patchc.selection.compact.holding import Holding, drawn
from patchc.selection.component_record import sample_digest


@dataclass(frozen=True)
class CompactWriter:
    """Writes the compact component of one direction, one tensor in memory at a time.

    Args:
        folder: an existing folder.
        base: the model that was tuned.
        holding: which entries the component holds.
        direction: what was derived.
        options: those of the derivation.
    """

    folder: Path
    base: Checkpoint
    holding: Holding
    direction: Direction
    options: DeriveOptions

    def write(
        self,
        scored: Iterable[str],
        value: Callable[[str], Tensor],
        score: Callable[[Score, str], Tensor],
    ) -> None:
        """Write all files of the component but the record.

        Args:
            scored: names of the tensors that have scores, or would have some.
            value: gives a tuned tensor by name; called once for each tensor that is held.
            score: gives a tensor's scores of a kind; called once for each.

        Raises:
            StorageError: the operating system refused.
        """
        component = self.holding.component(self.direction, self.options.folders)
        held = held_tensors(self.base, scored, self.options)
        tensors = {name: HeldTensor(shape, self.holding.share(name)) for name, shape in held}
        retentions = {
            name: drawn(component, name, self.holding.seed, one.retain)
            for name, one in tensors.items()
        }
        counts = {name: self._count(name, retentions[name]) for name in tensors}
        sizes = {name: 4 * int(count.sum()) for name, count in counts.items()}
        write = partial(self._write, retentions, sizes)
        write(VALUES, value)
        for kind in self.options.scores:
            write(compact_scores_stem(kind), partial(score, kind))
        sizes = {name: 4 * len(count) for name, count in counts.items()}
        write_shards(
            self.folder, COUNTS, sizes, counts.__getitem__, self.options.shard_bytes, COMPONENT_FORM
        )
        description = Description(
            component=component,
            seed=self.holding.seed,
            scores=self.options.scores,
            rest_unchanged=self.options.objective == "margin",
            base=sample_digest(self.base),
            tensors=tensors,
        )
        write_json(self.folder / COMPONENT_FILE, description.to_json())

    def _count(self, name: str, retention: Retention) -> Tensor:
        """Count the retained entries of each block of a tensor."""
        blocks = grid(self.base.tensors[name].words, BLOCK_WORDS)
        counts = [count_retained(one.count, one.first, retention) for one in blocks]
        return torch.from_numpy(np.array(counts, np.uint32))

    def _write(
        self,
        retentions: Mapping[str, Retention],
        sizes: Mapping[str, int],
        stem: str,
        load: Callable[[str], Tensor],
    ) -> None:
        def taken(name: str) -> Tensor:
            return _take(load(name), sizes[name] // 4, retentions[name])

        write_shards(self.folder, stem, sizes, taken, self.options.shard_bytes, COMPONENT_FORM)


def _take(tensor: Tensor, count: int, retention: Retention) -> Tensor:
    """Take the retained entries of an fp32 tensor, block by block."""
    words = tensor.detach().cpu().contiguous().reshape(-1).numpy().view(np.uint32)
    found = np.empty(count, np.uint32)
    block = np.empty(BLOCK_WORDS, np.uint32)
    end = 0
    for one in grid(words.size, BLOCK_WORDS):
        own = words[one.first : one.first + one.count]
        size = take_retained(own, one.first, retention, block)
        found[end : end + size] = block[:size]
        end += size
    return torch.from_numpy(found.view(np.float32))
