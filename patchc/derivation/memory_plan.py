"""Computes what a derivation takes, by where it keeps what it works on.

The figures are those of the largest batch. They hold what the passes, the optimiser, the scoring
and the writing take at their peaks, beside the memory that the process takes anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from patchc.derivation.adamw import RUN, Kind, runs_of
from patchc.derivation.load import Load
from patchc.derivation.states import state_bytes
from patchc.derivation.trainer import Layout
from patchc.layered.activations import LayerCost
from patchc.layered.model_parts import ModelParts
from patchc.layered.output_head import BLOCK_BYTES
from patchc.layered.weights import largest_layer, weight_bytes

_SLACK = 96 << 20
"""What the process takes in addition once it computes: threads, libraries, the allocator."""
_EIGHT_BIT_BYTES = 40
"""Memory for each entry of a run while its 8-bit moments are updated on the CPU."""
_LOGIT_COPIES = 4
"""Logits, their logarithmic softmax, and the gradients of both."""


@dataclass(frozen=True)
class Work:
    """What is to be derived, in numbers.

    Attributes:
        parts: the model.
        dtype: of its weights.
        autocast: whether products are computed in bfloat16.
        on_device: whether the model computes on a device with memory of its own.
        trained: how many entries of each tensor are trained.
        draws: whether these are drawn entries beside a model that stays as it is.
        scored: the shapes of the tensors to score.
        sums: the models whose gradients are summed, "base" or "tuned".
        compact: whether only retained entries of scored tensors are written.
        cost: what a layer keeps for its gradients.
        whole_logits: whether the logits of all places that are looked at are there at once.
        step: the runs of the model in one step.
        samples: the runs of the model whose gradients are summed into scores.
        asked: the runs of the base that is compared with later, all together.
        base_bytes: bytes of the base's tensors as they are stored.
        process_bytes: memory that the process takes before it begins.
    """

    parts: ModelParts
    dtype: torch.dtype
    autocast: bool
    on_device: bool
    trained: Mapping[str, int]
    draws: bool
    scored: Mapping[str, tuple[int, ...]]
    sums: frozenset[str]
    compact: bool
    cost: LayerCost
    whole_logits: bool
    step: Sequence[Load]
    samples: Sequence[Load]
    asked: Sequence[Load]
    base_bytes: int
    process_bytes: int


@dataclass(frozen=True)
class Need:
    """What one way to derive takes.

    Attributes:
        layout: where things lie.
        optimizer: the kind of moments.
        memory_bytes: peak of the process's memory on the host.
        device_bytes: peak of the memory on the device; 0 on the CPU.
        scratch_bytes: size of the scratch files.
        step_bytes: bytes that a step reads and writes; 0 in memory.
    """

    layout: Layout
    optimizer: Kind
    memory_bytes: int
    device_bytes: int
    scratch_bytes: int
    step_bytes: int


def need(work: Work, layout: Layout, optimizer: Kind) -> Need:
    """Compute what a derivation takes."""
    computing = max(_step(work, layout, optimizer), _scoring(work, layout))
    host = max(_update(work, layout, optimizer), _writing(work))
    if work.on_device:
        pinned = _slots(work, layout) if layout.streams else 0
        if layout.streams and layout.holds_head:
            host = max(host, 4 * math.prod(work.parts.shapes[work.parts.head_name]))
        memory, device = host + pinned, computing
    else:
        memory, device = max(computing, host + _held_while_writing(work, layout)), 0
    return Need(
        layout,
        optimizer,
        work.process_bytes + _SLACK + memory,
        device,
        _scratch(work, layout, optimizer),
        _traffic(work, optimizer) if layout.streams else 0,
    )


def _step(work: Work, layout: Layout, optimizer: Kind) -> int:
    """The peak of a step's gradients: within the layers, or at the head."""
    cost, layers = work.cost, len(work.parts.layers)
    kept = [cost.kept_bytes(load.rows, load.columns) for load in work.step]
    states = [_states(work, load) for load in work.step]
    boundaries = max(states) * 3 if layout.states_in_scratch else sum(states) * (layers + 3)
    head = max(_head(work, load, layout, learns=True) for load in work.step)
    boundaries += max(_arguments(work, work.step), _arguments(work, work.asked))
    if not layout.streams:
        every = sum(kept) * layers if layout.keeps else max(kept)
        return _held(work, optimizer) + every + boundaries + head
    own = [sum(work.trained.get(name, 0) for name in work.parts.group(n)) for n in range(layers)]
    tensor = max((work.trained.get(n, 0) for n in work.parts.inside), default=0)
    learning = 4 * max(own) + 4 * tensor * (1 if len(work.step) == 1 else 2) + 2 * max(kept)
    if work.draws:
        learning += 4 * max(math.prod(work.parts.shapes[n]) for n in work.parts.inside)
    return _slots(work, layout) + boundaries + max(learning, head)


def _scoring(work: Work, layout: Layout) -> int:
    """The peak of the scoring."""
    if not work.samples:
        return 0
    parts, cost = work.parts, work.cost
    kept = max(cost.kept_bytes(load.rows, load.columns) for load in work.samples)
    learns = parts.head_name in work.scored
    head = max(_head(work, load, layout, learns) for load in work.samples)
    sizes = {name: 4 * math.prod(shape) for name, shape in work.scored.items()}
    tensor = max(sizes.values())
    ends = sum(size for name, size in sizes.items() if name not in parts.inside)
    if not layout.streams:
        layers = len(parts.layers) if layout.keeps else 1
        sums = sum(sizes.values()) * len(work.sums)
        return weight_bytes(work.parts, work.dtype) + sums + tensor + kept * layers + head
    layer = max(
        sum(sizes.get(name, 0) for name in parts.group(n)) for n in range(len(parts.layers))
    )
    states = 3 * max(_states(work, load) for load in work.samples)
    states += _arguments(work, work.samples)
    if parts.tied and learns:
        head += sizes[parts.head_name]  # a sample's gradient, until the embedding's is added
    return _slots(work, layout) + ends + states + max(layer + tensor + 2 * kept, head)


def _head(work: Work, load: Load, layout: Layout, learns: bool) -> int:
    """Logits with their gradients, and blocks of the head with theirs."""
    rows, columns = work.parts.shapes[work.parts.head_name]
    block = min(BLOCK_BYTES, 4 * rows * columns)
    every = 4 * load.places * rows
    logits = _LOGIT_COPIES * (every if work.whole_logits else min(every, BLOCK_BYTES))
    whole = work.dtype.itemsize * rows * columns if layout.streams and layout.holds_head else 0
    trains = learns and work.parts.head_name in work.trained
    return logits + whole + block * (4 if trains else 2)


def _arguments(work: Work, loads: Iterable[Load]) -> int:
    """What each loss's layers are given beside the states: positions, and masks of padded rows."""
    width = work.parts.head_width
    return sum(8 * width * load.tokens + load.tokens * load.columns for load in loads)


def _update(work: Work, layout: Layout, optimizer: Kind) -> int:
    """A run's state with its gradient, while the optimiser works on it."""
    run = min(RUN, max(work.trained.values(), default=0))
    if not layout.streams:
        return 0
    temporary = _EIGHT_BIT_BYTES * run if optimizer == "adamw8bit" else 0
    return 2 * state_bytes(optimizer, run) + 8 * run + temporary


def _writing(work: Work) -> int:
    """A tensor as it is written, with what its scores are computed from."""
    largest = max(work.parts.shapes.values(), key=math.prod)
    scored = max((math.prod(shape) for shape in work.scored.values()), default=0)
    written = 0 if work.compact else math.prod(largest)
    return max(4 * written, 4 * 4 * scored)


def _held_while_writing(work: Work, layout: Layout) -> int:
    if layout.streams:
        return _slots(work, layout)
    sums = 4 * sum(math.prod(shape) for shape in work.scored.values())
    return weight_bytes(work.parts, work.dtype) + sums * len(work.sums)


def _held(work: Work, optimizer: Kind) -> int:
    """Weights, gradients and moments, all in memory."""
    moments = sum(
        state_bytes(optimizer, run.count) - 4 * run.count for run in runs_of(work.trained)
    )
    entries = sum(work.trained.values())
    # Positions, base values and deltas of drawn entries; and one whole gradient.
    drawn = 16 * entries if work.draws else 0
    largest = max(map(math.prod, work.parts.shapes.values()))
    return weight_bytes(work.parts, work.dtype) + moments + 4 * entries + drawn + 4 * largest


def _slots(work: Work, layout: Layout) -> int:
    rounded = work.parts.in_bf16 if work.autocast else frozenset[str]()
    return largest_layer(work.parts, rounded, work.dtype) * (2 if layout.ahead else 1)


def _states(work: Work, load: Load) -> int:
    return load.tokens * work.parts.hidden * work.dtype.itemsize


def _scratch(work: Work, layout: Layout, optimizer: Kind) -> int:
    """Scratch files at their peak: those of the steps, then those of the scoring beside states."""
    if not layout.streams:
        return 0
    runs = [state_bytes(optimizer, run.count) for run in runs_of(work.trained)]
    states = sum(runs) + max(runs, default=0)
    layers = len(work.parts.layers)
    gradients = 4 * sum(work.trained.values())
    if layout.states_in_scratch:
        gradients += (layers + 3) * sum(_states(work, load) for load in work.step)
    gradients = max(gradients, 2 * sum(_states(work, load) for load in work.asked))
    one = 4 * sum(math.prod(shape) for shape in work.scored.values())
    of_base = one if "base" in work.sums else 0
    samples = (layers + 3) * sum(_states(work, load) for load in work.samples)
    return states + max(gradients + of_base, one * len(work.sums) + samples)


def _traffic(work: Work, optimizer: Kind) -> int:
    """Bytes that a later step reads and writes: weights twice, gradients and states both ways."""
    parts = work.parts
    inside = sum(math.prod(parts.shapes[name]) for name in parts.inside)
    head = math.prod(parts.shapes[parts.head_name])
    weights = 2 * 4 * (inside + head) if not work.draws else 2 * work.base_bytes
    entries = sum(work.trained.values())
    states = sum(state_bytes(optimizer, run.count) for run in runs_of(work.trained))
    return weights + 2 * 4 * entries + 2 * states
