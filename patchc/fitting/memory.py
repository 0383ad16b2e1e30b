"""The memory of a fit: whether the model is held or streamed, and what a step may keep.

The figures are those of the largest batches, beside what the process has when it asks: libraries,
and the entries that the recipe selects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from patchc.derivation.load import Load
from patchc.errors import UsageError
from patchc.fitting.loads import FitLoads
from patchc.fitting.rounds import ROUND_BYTES
from patchc.layered.activations import LayerCost
from patchc.layered.model_parts import ModelParts
from patchc.layered.output_head import BLOCK_BYTES
from patchc.layered.passes import Term
from patchc.layered.weights import largest_layer, weight_bytes

_SLACK = 96 << 20
"""What the process takes in addition once it computes: threads, libraries, the allocator."""
_LOGIT_BYTES, _LEARNING_BYTES = 8, 16
"""Of each logit, beside itself: in fp32, with its logarithmic softmax, and with gradients."""
_ENTRY_BYTES = 40
"""Of each entry of the tensor that is at work: places, values, deltas and gradients."""


@dataclass(frozen=True)
class Work:
    """What is to be fitted, in numbers.

    Attributes:
        parts: the model.
        dtype: of its weights.
        on_device: whether the model computes on a device with memory of its own.
        cost: what a layer keeps for its gradients.
        loads: how much text passes it at once.
        word_bytes: of the words of all selected entries.
        most_words: words of the largest tensor that takes part.
        most_entries: entries of the tensor with most.
        process_bytes: memory of the process, with the selected entries.
    """

    parts: ModelParts
    dtype: torch.dtype
    on_device: bool
    cost: LayerCost
    loads: FitLoads
    word_bytes: int
    most_words: int
    most_entries: int
    process_bytes: int

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.parts.layers)


@dataclass(frozen=True)
class Way:
    """Where the model's weights are.

    Attributes:
        streams: whether it is read layer by layer; otherwise it is in memory.
        holds_head: whether the output head is then held while several losses need it, and not read
            in blocks for each.
    """

    streams: bool = False
    holds_head: bool = False


_WAYS = Way(), Way(streams=True, holds_head=True), Way(streams=True)
"""The best one first."""


@dataclass(frozen=True)
class Room:
    """How the losses of a step pass the model.

    Attributes:
        work: what is fitted.
        way: where the weights are.
        room: bytes for what a loss keeps, where the model is in memory.
    """

    work: Work
    way: Way
    room: int

    def passes(self, jobs: Sequence[tuple[Term, Load]]) -> Iterator[tuple[list[Term], bool]]:
        """Yield the losses that pass the model together, and whether they keep their graphs."""
        if self.way.streams:
            yield [term for term, _ in jobs], False
            return
        for term, load in jobs:
            needed = _kept(self.work, load, self.work.layers, self.way)
            yield [term], needed <= self.room


def choose(work: Work, memory: int, device: int) -> Room:
    """Choose where a fit has the model's weights.

    Args:
        work: what is fitted.
        memory: bytes that the process may take.
        device: bytes that it may take on a device.

    Raises:
        UsageError: all ways need more; says what the least is.
    """
    ways = {way: _need(work, way) for way in _WAYS}
    for way, (host, own) in ways.items():
        if host <= memory and own <= device:
            fixed = _weights(work, way) + _at_work(work)
            rest = device if work.on_device else memory - _beside(work, way)
            return Room(work, way, rest - fixed)
    # What computes is the larger part: on the device, if there is one.
    least, own = min(ways.values(), key=lambda need: need[1] or need[0])
    of_device = f" and {own:,} bytes of the device's" if work.on_device else ""
    allowed = f"{memory:,}" + (f" and {device:,}" if work.on_device else "")
    raise UsageError(
        f"the fit needs at least {least:,} bytes of memory (max_memory){of_device}, and may take "
        f"{allowed}; allow more, take a lower density, shorter requests or a smaller batch, or ask "
        "fewer requests together"
    )


def _need(work: Work, way: Way) -> tuple[int, int]:
    """The least memory on the host, and on the device."""
    computing = max(_step(work, way), _evaluating(work, way), _speaking(work, way))
    computing += _weights(work, way) + _at_work(work)
    if not work.on_device:
        return _beside(work, way) + computing, 0
    # Loaded on the host first; or read into pinned memory.
    loading = _weights(work, way) + _at_work(work) + _of_head(work, way)
    return _beside(work, way) + loading, computing


def _beside(work: Work, way: Way) -> int:
    """The process, with the words of the point that is tried where they are kept apart."""
    return work.process_bytes + _SLACK + (work.word_bytes if way.streams else 0)


def _weights(work: Work, way: Way) -> int:
    """The model, or two of its layers."""
    if not way.streams:
        return weight_bytes(work.parts, work.dtype)
    return 2 * largest_layer(work.parts, frozenset(), work.dtype)


def _at_work(work: Work) -> int:
    """A tensor's gradient, and what is computed of its entries."""
    return work.dtype.itemsize * work.most_words + _ENTRY_BYTES * work.most_entries


def _step(work: Work, way: Way) -> int:
    kept = [_kept(work, load, 1, way) for load in work.loads.step]
    if not way.streams:
        return max(kept)
    states = [_states(work, load.tokens) * (work.layers + 3) for load in work.loads.step]
    # All losses' states are there, and what one of them computes.
    return sum(states) + max(one - own for one, own in zip(kept, states, strict=True))


def _kept(work: Work, load: Load, layers: int, way: Way) -> int:
    """What a loss takes that keeps the graphs of some layers at a time."""
    # On the way back, a layer's gradients take as much, and blocks that are freed are not at once
    # used again.
    graphs = work.cost.kept_bytes(load.rows, load.columns) * (layers + 2)
    head = _of_head(work, way) + _logits(work, load, _LEARNING_BYTES, BLOCK_BYTES // 4)
    return _states(work, load.tokens) * (work.layers + 3) + graphs + head


def _evaluating(work: Work, way: Way) -> int:
    """What a round of evaluations takes: states before and behind a layer, and one run."""
    loads = work.loads
    each = [*loads.evaluated, *loads.whole]
    together = min(ROUND_BYTES, _states(work, loads.evaluated_tokens))
    states = max(together, *(_states(work, load.tokens) for load in each))
    logits = [_logits(work, load, _LOGIT_BYTES, BLOCK_BYTES // 4) for load in loads.evaluated]
    logits += [_logits(work, load, _LOGIT_BYTES) for load in loads.whole]
    runs = [_run(work, load) for load in each]
    return 2 * states + max(*runs, _of_head(work, way) + max(logits))


def _speaking(work: Work, way: Way) -> int:
    """Keys and values of all layers, and one run over the requests."""
    load, config = work.loads.spoken, work.parts.model.config.get_text_config()
    heads: int = getattr(config, "num_attention_heads", 1)
    pairs: int = getattr(config, "num_key_value_heads", None) or heads
    held = 2 * pairs * work.parts.head_width * work.layers * work.dtype.itemsize * load.tokens
    logits = _of_head(work, way) + _logits(work, load, _LOGIT_BYTES)
    return held + max(_run(work, load), logits)


def _run(work: Work, load: Load) -> int:
    """What a layer takes without gradients: not more than what it keeps for them."""
    return work.cost.kept_bytes(load.rows, load.columns)


def _states(work: Work, tokens: int) -> int:
    """The states at one boundary."""
    return tokens * work.parts.hidden * work.dtype.itemsize


def _of_head(work: Work, way: Way) -> int:
    """What is read of the head at a time."""
    if not way.streams:
        return 0
    words = math.prod(work.parts.shapes[work.parts.head_name])
    return work.dtype.itemsize * (words if way.holds_head else min(BLOCK_BYTES // 4, words))


def _logits(work: Work, load: Load, beside: int, most: int | None = None) -> int:
    """Logits with so many bytes beside each; ``most`` of them where they come in blocks."""
    count = load.places * work.parts.shapes[work.parts.head_name][0]
    return (count if most is None else min(count, most)) * (work.dtype.itemsize + beside)
