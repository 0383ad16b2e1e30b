"""The plan of a build, known before anything heavy starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from patchc.checkpoint import Checkpoint, TensorInfo
from patchc.dtypes import INT8_BLOCK
from patchc.formats import ValueType
from patchc.runtime.device_pool import HOST_BYTES
from patchc.runtime.memory import RUNTIME_BYTES
from patchc.runtime.runtime import Runtime

BUFFER_BYTES_PER_WORD = 48
"""All buffers of one thread for each word of a chunk, with both deltas in fp32."""

_STEP_BITS = {"F32": 18, "F16": 5}
"""Bits of a step by dtype: 2 in bf16, and one more for each further bit of precision."""
_COARSE_STEP_BITS = 2

_VALUE_BITS = {"bf16": 16, "int8": 8 + 32 / INT8_BLOCK}


@dataclass(frozen=True)
class BuildPlan:
    """The plan of a build.

    Attributes:
        candidates: tensors that take part, sorted by name.
        candidate_words: their entries.
        model_words: entries of the whole model.
        selected: the most entries that can be selected.
        patch_bytes: expected size of the patch. Exact changes are assumed to be a few bf16 units
            in the last place, whatever the base's dtype.
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


def plan_build(
    base: Checkpoint,
    candidates: Sequence[TensorInfo],
    selected: int,
    read_bytes: int,
    chunk_words: int,
    runtime: Runtime,
    value_type: ValueType | None = None,
    components: int = 1,
) -> BuildPlan:
    """Plan a build that selects at most ``selected`` entries, over all components."""
    candidate_words = sum(tensor.words for tensor in candidates)
    selected = min(selected, candidate_words)
    patch_bytes = expected_patch_bytes(
        base, candidates, selected, chunk_words, value_type, components
    )
    host_bytes = HOST_BYTES if runtime.pool else 0
    thread_bytes = BUFFER_BYTES_PER_WORD * chunk_words
    return BuildPlan(
        candidates=tuple(tensor.name for tensor in candidates),
        candidate_words=candidate_words,
        model_words=sum(tensor.words for tensor in base.tensors.values()),
        selected=selected,
        patch_bytes=patch_bytes,
        memory_bytes=RUNTIME_BYTES + host_bytes + runtime.threads * thread_bytes,
        read_bytes=read_bytes,
    )


def expected_patch_bytes(
    base: Checkpoint,
    candidates: Sequence[TensorInfo],
    selected: int,
    chunk_words: int,
    value_type: ValueType | None = None,
    components: int = 1,
) -> int:
    """Expected size of a patch of ``selected`` entries (see :class:`BuildPlan`)."""
    candidate_words = sum(tensor.words for tensor in candidates)
    density = selected / candidate_words if candidate_words else 0.0
    gap_bits = max(1.0, math.log2(1 / density) + 1.5) if density else 0.0
    if value_type:
        # Each component stores its own positions.
        entry_bits = gap_bits + _VALUE_BITS[value_type] + math.log2(components)
    else:
        entry_bits = gap_bits + _mean_step_bits(candidates)
    chunks = sum(-(-tensor.words // chunk_words) for tensor in base.tensors.values())
    return math.ceil(selected * entry_bits / 8) + 40 * chunks + 1000


def _mean_step_bits(tensors: Sequence[TensorInfo]) -> float:
    words = sum(tensor.words for tensor in tensors)
    bits = sum(t.words * _STEP_BITS.get(t.dtype.name, _COARSE_STEP_BITS) for t in tensors)
    return bits / words if words else 0.0


def most_retained(retain: float, words: int) -> int:
    """An upper bound on retained entries; by Hoeffding, exceeded with probability below e⁻⁵⁰."""
    return min(words, math.ceil(retain * words + 5 * math.sqrt(words)))
