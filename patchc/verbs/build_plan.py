"""What a build will do, known before anything heavy starts, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.compiler.pipeline import CompiledPatch
from patchc.formats import ValueType

_STEP_BITS = {"F32": 18, "F16": 5}
"""Of a step by dtype: 2 in bf16, and one more for each bit of precision that the dtype has more."""
_COARSE_STEP_BITS = 2

_VALUE_BITS = {"bf16": 16, "int8": 8 + 32 / 256}


@dataclass(frozen=True)
class BuildPlan:
    """What a build will do, known before anything heavy starts.

    Attributes:
        candidates: tensors that take part, sorted by name.
        candidate_words: their entries.
        model_words: entries of the whole model.
        selected: entries that can be selected at most.
        patch_bytes: expected size of the patch; for exact values, if the changes are a few units
            in the last place of bf16, whatever the base's dtype.
        memory_bytes: expected peak memory.
        read_bytes: bytes that will be read.
    """

    candidates: tuple[str, ...]
    candidate_words: int
    model_words: int
    selected: int
    patch_bytes: int
    memory_bytes: int
    read_bytes: int

    @property
    def density(self) -> float:
        """Expected share of the model's entries that change, an upper estimate."""
        return self.selected / self.model_words if self.model_words else 0.0


@dataclass(frozen=True)
class BuildReport:
    """A finished build: its plan, and what was written (None after a dry run)."""

    plan: BuildPlan
    patch: CompiledPatch | None


def expected_patch_bytes(
    base: Checkpoint,
    candidates: Sequence[TensorInfo],
    selected: int,
    chunk_bits: int,
    value_type: ValueType | None = None,
    components: int = 1,
) -> int:
    """Expected size of a patch of ``selected`` entries (see :class:`BuildPlan`)."""
    candidate_words = sum(tensor.words for tensor in candidates)
    density = selected / candidate_words if candidate_words else 0.0
    gap_bits = max(1.0, math.log2(1 / density) + 1.5) if density else 0.0
    if value_type:
        # Each component has positions of its own.
        entry_bits = gap_bits + _VALUE_BITS[value_type] + math.log2(components)
    else:
        entry_bits = gap_bits + _mean_step_bits(candidates)
    chunks = sum(-(-tensor.words >> chunk_bits) for tensor in base.tensors.values())
    return math.ceil(selected * entry_bits / 8) + 40 * chunks + 1000


def _mean_step_bits(tensors: Sequence[TensorInfo]) -> float:
    words = sum(tensor.words for tensor in tensors)
    bits = sum(t.words * _STEP_BITS.get(t.dtype.name, _COARSE_STEP_BITS) for t in tensors)
    return bits / words if words else 0.0


def most_retained(retain: float, words: int) -> int:
    """A bound on the draws that retain: by Hoeffding, above it with probability below e⁻⁵⁰."""
    return min(words, math.ceil(retain * words + 5 * math.sqrt(words)))
