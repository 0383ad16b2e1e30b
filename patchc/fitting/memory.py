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
from patchc.layered.weights import layer_bytes

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
class Room:
    """How the losses of a step pass the model.

    Attributes:
        work: what is fitted.
        streams: whether the model is read layer by layer.
        room: bytes for what a loss keeps, where the model is in memory.
    """

    work: Work
    streams: bool
    room: int

    def passes(self, jobs: Sequence[tuple[Term, Load]]) -> Iterator[tuple[list[Term], bool]]:
        """Yield the losses that pass the model together, and whether they keep their graphs."""
        if self.streams:
            yield [term for term, _ in jobs], False
            return
        for term, load in jobs:
            needed = _kept(self.work, load, self.work.layers, self.streams)
            yield [term], needed <= self.room


def choose(work: Work, memory: int, device: int) -> Room:
    """Choose whether a fit streams the model.

    Args:
        work: what is fitted.
        memory: bytes that the process may take.
        device: bytes that it may take on a device.

    Raises:
        UsageError: both ways need more; says what the least is.
    """
    ways = {streams: _need(work, streams) for streams in (False, True)}
    for streams, (host, own) in ways.items():
        if host <= memory and own <= device:
            fixed = _weights(work, streams) + _at_work(work)
            rest = device if work.on_device else memory - _beside(work, streams)
            return Room(work, streams, rest - fixed)
    # What computes is the larger part: on the device, if there is one.
    least, own = min(ways.values(), key=lambda way: way[1] or way[0])
    of_device = f" and {own:,} bytes of the device's" if work.on_device else ""
    allowed = f"{memory:,}" + (f" and {device:,}" if work.on_device else "")
    raise UsageError(
        f"the fit needs at least {least:,} bytes of memory (max_memory){of_device}, and may take "
        f"{allowed}; allow more, take a lower density, shorter requests or a smaller batch, or ask "
        "fewer requests together"
    )


def _need(work: Work, streams: bool) -> tuple[int, int]:
    """The least memory on the host, and on the device."""
    loads = work.loads
    evaluated = max(_head(work, load, streams) for load in loads.evaluated)
    whole = max(_logits(work, load) for load in loads.whole)
    peak = max(
        _step(work, streams),
        _evaluating(work, max(evaluated, whole)),
        _speaking(work),
    )
    computing = _weights(work, streams) + _at_work(work) + peak
    if not work.on_device:
        return _beside(work, streams) + computing, 0
    # Loaded on the host first; or read into pinned memory.
    return _beside(work, streams) + _weights(work, streams) + _at_work(work), computing


def _beside(work: Work, streams: bool) -> int:
    """The process, with the words of the point that is tried where they are kept apart."""
    return work.process_bytes + _SLACK + (work.word_bytes if streams else 0)


def _weights(work: Work, streams: bool) -> int:
    if not streams:
        return work.dtype.itemsize * sum(map(math.prod, work.parts.shapes.values()))
    groups = (work.parts.group(number) for number in range(work.layers))
    return 2 * max(layer_bytes(group, frozenset(), work.dtype) for group in groups)


def _at_work(work: Work) -> int:
    """A tensor's gradient, and what is computed of its entries."""
    return work.dtype.itemsize * work.most_words + _ENTRY_BYTES * work.most_entries


def _step(work: Work, streams: bool) -> int:
    kept = [_kept(work, load, 1, streams) for load in work.loads.step]
    if not streams:
        return max(kept)
    states = [_states(work, load.tokens) * (work.layers + 3) for load in work.loads.step]
    # All losses' states are there, and what one of them computes.
    return sum(states) + max(one - own for one, own in zip(kept, states, strict=True))


def _kept(work: Work, load: Load, layers: int, streams: bool) -> int:
    """What a loss takes that keeps the graphs of some layers at a time."""
    # On the way back, a layer's gradients take as much, and blocks that are freed are not at once
    # used again.
    graphs = work.cost.kept_bytes(load.rows, load.columns) * (layers + 2)
    head = _head(work, load, streams, _LEARNING_BYTES)
    return _states(work, load.tokens) * (work.layers + 3) + graphs + head


def _evaluating(work: Work, logits: int) -> int:
    """What a round of evaluations takes: states before and behind a layer, and one run."""
    loads = [*work.loads.evaluated, *work.loads.whole]
    together = min(ROUND_BYTES, _states(work, work.loads.evaluated_tokens))
    states = max(together, *(_states(work, load.tokens) for load in loads))
    return 2 * states + max(*(_run(work, load) for load in loads), logits)


def _speaking(work: Work) -> int:
    """Keys and values of all layers, and one run over the requests."""
    load, config = work.loads.spoken, work.parts.model.config.get_text_config()
    heads: int = getattr(config, "num_attention_heads", 1)
    size: int = getattr(config, "head_dim", None) or config.hidden_size // heads
    pairs: int = getattr(config, "num_key_value_heads", None) or heads
    held = 2 * pairs * size * work.layers * work.dtype.itemsize * load.tokens
    return held + max(_run(work, load), _logits(work, load))


def _run(work: Work, load: Load) -> int:
    """What a layer takes without gradients: not more than what it keeps for them."""
    return work.cost.kept_bytes(load.rows, load.columns)


def _states(work: Work, tokens: int) -> int:
    """The states at one boundary."""
    hidden = work.parts.shapes[work.parts.head_name][1]
    return tokens * hidden * work.dtype.itemsize


def _head(work: Work, load: Load, streams: bool, logit_bytes: int = _LOGIT_BYTES) -> int:
    """Logits, and the block of the head that is read for them."""
    rows, columns = work.parts.shapes[work.parts.head_name]
    block = min(BLOCK_BYTES // 4, rows * columns) * work.dtype.itemsize if streams else 0
    # More logits than a block's are never there at once.
    return block + min(BLOCK_BYTES // 4, load.places * rows) * (work.dtype.itemsize + logit_bytes)


def _logits(work: Work, load: Load) -> int:
    """Logits of all places at once."""
    rows = work.parts.shapes[work.parts.head_name][0]
    return load.places * rows * (work.dtype.itemsize + _LOGIT_BYTES)
