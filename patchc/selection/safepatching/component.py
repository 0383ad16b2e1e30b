"""One of the two patches as a build reads it: tuned weights, scores, and how it enters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from patchc.buffers import scratch
from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.formats import RetentionMask
from patchc.kernels.bitmask import Bitmask
from patchc.kernels.philox.cpu import KEEP_ALL, Retention, retention_stream, retention_threshold
from patchc.kernels.topk.cpu import Bits
from patchc.kernels.topk.sampled import keep_retained
from patchc.recipe import Recipe

ComponentName = Literal["se", "osm"]


@dataclass(frozen=True)
class Component:
    """The safety-enhancement or the over-safety-mitigation patch.

    Attributes:
        name: part of the retention stream.
        tuned: the tuned model's checkpoint.
        scores: fp32 scores under the same tensor names.
        recipe: parameters of the selection.
    """

    name: ComponentName
    tuned: Checkpoint
    scores: Checkpoint
    recipe: Recipe

    def top(self, tensor: str) -> float:
        """The share of entries that are taken by score, a or b."""
        recipe = self.recipe.for_tensor(tensor)
        return recipe.top_se if self.name == "se" else recipe.top_osm

    def retain(self, tensor: str) -> float:
        """The probability p that an entry is retained."""
        return self.recipe.for_tensor(tensor).retain

    def scale(self, tensor: str) -> np.float32:
        """The factor of the delta: α or β, divided by p where the recipe rescales.

        The quotient is taken in float64 and rounded to fp32 once; 0 where nothing is retained.
        """
        return _scale(self.name, self.recipe.for_tensor(tensor))

    def stored_scale(self, tensor: str) -> np.float32:
        """The part of :meth:`scale` that goes into additive values.

        All of it where scales differ by tensor, since a patch states one for all; else 1.
        """
        return self.scale(tensor) if self.recipe.scales_differ else np.float32(1)

    def stated_scale(self) -> float:
        """The part of :meth:`scale` that an additive patch states, for all tensors."""
        return 1.0 if self.recipe.scales_differ else float(_scale(self.name, self.recipe))

    def retention(self, tensor: str) -> Retention:
        """Which entries of a tensor are retained."""
        threshold = retention_threshold(self.retain(tensor))
        return Retention(self.recipe.seed, retention_stream(self.name, tensor), threshold)

    def mask(self, tensor: str) -> RetentionMask:
        """The same as a patch file states it."""
        return RetentionMask(self.name, self.recipe.seed, retention_threshold(self.retain(tensor)))

    def ranked(self, tensor: str) -> Retention:
        """Which entries of a tensor are ranked by score."""
        retention = self.retention(tensor)
        if self.recipe.rank_among == "retained":
            return retention
        return Retention(retention.seed, retention.stream, KEEP_ALL)

    def keep_retained(self, tensor: str, chunk: Chunk, marks: Bitmask) -> None:
        """Clear a chunk's ``marks`` where the entry is not retained."""
        keep_retained(marks, chunk.count, chunk.first, self.retention(tensor))

    def source(self, tensor: str) -> str:
        """The scores' file and the tensor, for messages."""
        return f"{self.scores.path}: tensor {tensor!r}"

    def read_scores(self, tensor: TensorInfo, chunk: Chunk) -> Bits:
        """A run of scores as uint32, in a scratch buffer of the calling thread."""
        bits: Bits = scratch("scores", chunk.count, np.uint32)
        self.scores.read_words(self.scores.tensors[tensor.name], chunk.first, bits)
        return bits


def _scale(component: ComponentName, recipe: Recipe) -> np.float32:
    factor = recipe.alpha if component == "se" else recipe.beta
    if recipe.rescale:
        factor = factor / recipe.retain if recipe.retain else 0.0
    with np.errstate(over="ignore"):
        return np.float32(factor)
