"""One component of a SafePatching build: tuned weights, scores, retention and scale.

A component is safety enhancement (SE) or over-safety mitigation (OSM).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.chunks import Chunk
from patchc.formats import RetentionMask
from patchc.kernels.philox import KEEP_ALL, Retention, retention_threshold
from patchc.kernels.topk.cpu import Bits
from patchc.recipe import Recipe
from patchc.runtime.runtime import Buffers
from patchc.selection.compact.holding import drawn
from patchc.selection.used_words import UsedWords

ComponentName = Literal["se", "osm"]


@dataclass(frozen=True)
class Component:
    """The SE or the OSM component.

    Attributes:
        name: seeds the retention, with the recipe's seed and the tensor's name.
        tuned: the tuned model's checkpoint.
        scores: fp32 scores under the same tensor names.
        recipe: parameters of the selection.
        buffers: memory for scores.
    """

    name: ComponentName
    tuned: Checkpoint
    scores: Checkpoint
    recipe: Recipe
    buffers: Buffers

    def top(self, tensor: str) -> float:
        """The share of entries in the top set, a or b."""
        recipe = self.recipe.for_tensor(tensor)
        return recipe.top_se if self.name == "se" else recipe.top_osm

    def top_count(self, tensor: str, entries: int) -> int:
        """How many of so many entries are in the top set."""
        return math.floor(self.top(tensor) * entries)

    def retain(self, tensor: str) -> float:
        """The probability p that an entry is retained."""
        return self.recipe.for_tensor(tensor).retain

    def scale(self, tensor: str) -> np.float32:
        """The scale of the delta: α or β, divided by p where the recipe rescales.

        The quotient is computed in float64 and rounded to fp32 once; 0 if nothing is retained.
        """
        return _scale(self.name, self.recipe.for_tensor(tensor))

    def stored_scale(self, tensor: str) -> np.float32:
        """The scale that is worked into additive values, before :meth:`stated_scale`.

        1, unless scales differ by tensor: a patch can state only one for all of them.
        """
        return self.scale(tensor) if self.recipe.scales_differ else np.float32(1)

    def stated_scale(self) -> float:
        """The scale that an additive patch states for all tensors."""
        return 1.0 if self.recipe.scales_differ else float(_scale(self.name, self.recipe))

    def retention(self, tensor: str) -> Retention:
        """Which entries of a tensor are retained."""
        return drawn(self.name, tensor, self.recipe.seed, self.retain(tensor))

    def mask(self, tensor: str) -> RetentionMask:
        """The retention mask of a tensor as a patch file states it."""
        return RetentionMask(self.name, self.recipe.seed, retention_threshold(self.retain(tensor)))

    def ranked(self, tensor: str) -> Retention:
        """Which entries of a tensor are ranked by score."""
        retention = self.retention(tensor)
        if self.recipe.rank_among == "retained":
            return retention
        return Retention(retention.seed, retention.stream, KEEP_ALL)

    def used(self, model: Checkpoint, tensor: str) -> UsedWords:
        """The words of a tensor of the tuned model or the scores that the build may use."""
        return UsedWords(model, model.tensors[tensor], self.ranked(tensor), self.buffers)

    def source(self, tensor: str) -> str:
        """The scores' file and the tensor, for messages."""
        return f"{self.scores.path}: tensor {tensor!r}"

    def read_scores(self, tensor: TensorInfo, chunk: Chunk) -> Bits:
        """Read the bits of a run of scores into a buffer of the calling thread."""
        bits: Bits = self.buffers.scores(chunk.count, np.uint32)
        self.scores.read_words(self.scores.tensors[tensor.name], chunk.first, bits)
        return bits


def _scale(component: ComponentName, recipe: Recipe) -> np.float32:
    scale = recipe.alpha if component == "se" else recipe.beta
    if recipe.rescale:
        scale = scale / recipe.retain if recipe.retain else 0.0
    with np.errstate(over="ignore"):
        return np.float32(scale)
