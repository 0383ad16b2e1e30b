"""Codec 3, "conditional": changes coded given the words that they apply to (SPEC.md, section 6.4).

Small weights change before large ones, and by more steps; so positions and steps are coded by
classes of the words' exponents, with statistics that the chunk's own header states. The changes of
a class come one after the other; the decoder then finds their words in one scan of the chunk's, the
base's going forward and the result's going back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.buffers import scratch
from patchc.dtypes import DType, Words
from patchc.errors import PatchFormatError
from patchc.formats.codecs.conditional.decode.decode_positions import place_changes, scratch_for
from patchc.formats.codecs.conditional.encode.encoder import ChunkEncoder
from patchc.formats.codecs.conditional.model.chunk_model import (
    Model,
    empty_model,
    model_starts,
    ranges_of,
)
from patchc.formats.codecs.conditional.model.classes import (
    ALL,
    EDGES,
    MOST_GROUPS,
    ONE_GROUP,
    POPULATIONS,
    Groups,
    layout_of,
)
from patchc.formats.codecs.conditional.model.header import read_model
from patchc.formats.codecs.conditional.model.levels import level_tables, pop_geometric
from patchc.formats.codecs.conditional.model.rans import (
    SCALE,
    Stack,
    Symbols,
    fill_symbols,
    unpack,
)
from patchc.formats.codecs.conditional.model.step_tokens import (
    FLIPS,
    SYMBOLS,
    pop_flips,
    pop_step,
)
from patchc.formats.codecs.protocol import Coding, Positions, Steps
from patchc.jit import Integer, compiled, kernel
from patchc.kernels.histograms import Counts

CONDITIONAL_ID = 3
"""The codec's number in a patch file."""


def encode_conditional(
    words: Words,
    positions: Positions,
    steps: Steps,
    dtype: DType,
    groups: Groups | None = None,
    held: Counts | None = None,
) -> Coding:
    """The body that :class:`ChunkEncoder` makes of the changes of a chunk, which see."""
    return ChunkEncoder(words, positions, steps, dtype, groups, held).encode(groups is not None)


def decode_conditional(
    body: bytes,
    words: Words,
    entries: int,
    dtype: DType,
    revert: bool,
    groups: Groups | None = None,
) -> tuple[Positions, Steps]:
    """Invert :func:`encode_conditional`; ``body`` may be hostile.

    A hostile body may decode to changes that its writer never coded: what it promises, the digest
    of the result settles.

    Args:
        body: a chunk's body.
        words: the chunk in the base, or in the result with ``revert``; not changed here.
        entries: changes in the chunk.
        dtype: of the words.
        revert: whether ``words`` are the result's.
        groups: as for the encoder.

    Returns:
        Exactly ``entries`` positions, strictly increasing and below the number of words, and the
        steps from base to result, none 0.

    Raises:
        PatchFormatError: the body is not a coding of ``entries`` changes of these words.
    """
    _check_entries(entries, words)
    positions, steps = np.empty(entries, np.uint32), np.empty(entries, np.int64)
    none = np.empty(0, words.dtype)
    _decode(body, words, entries, dtype, revert, groups, positions, steps, none)
    return positions, steps


def change_words(
    body: bytes,
    words: Words,
    entries: int,
    dtype: DType,
    revert: bool,
    groups: Groups | None = None,
) -> None:
    """Take a chunk's words to the result, or with ``revert`` back to the base, in place.

    What :func:`decode_conditional` finds is added without being listed; arguments and errors are
    the same. After an error the words may be anything.
    """
    _check_entries(entries, words)
    none = np.empty(0, np.uint32), np.empty(0, np.int64)
    _decode(body, words, entries, dtype, revert, groups, *none, words)


def _check_entries(entries: int, words: Words) -> None:
    if not 0 < entries <= len(words):
        raise PatchFormatError(f"its record says {entries} changes of {len(words)} words")


def _decode(
    body: bytes, words: Words, entries: int, dtype: DType, revert: bool, groups: Groups | None,
    positions: Positions, steps: Steps, results: Words,
) -> None:  # fmt: skip
    """Fill ``positions`` and ``steps``, or change the words where they are ``results``, too."""
    members, kinds = _members(groups)
    layout = layout_of(dtype, kinds)
    x, stream = unpack(body)
    model = empty_model()
    good, x, at = read_model(x, 0, stream, kinds, int(layout.exponent_bits), entries, model)
    if not good:
        raise PatchFormatError("its body is corrupt: a field of its header is out of range")
    levels = level_tables()
    gaps, values = scratch("gaps", entries, np.uint32), scratch("values", entries, np.int64)
    x, at = _pop_changes(
        np.uint64(x), at, stream, model, _symbol_slots(model_starts(model)), dtype.word_bits,
        np.int64(len(words)), levels.low_bits, levels.tokens, levels.slots, gaps, values,
    )  # fmt: skip
    if x != 1 or at != len(stream) - 1:
        raise PatchFormatError("its body is corrupt: it holds bits that belong to nothing")
    ranges = ranges_of(model, kinds, layout)
    ends = np.cumsum(model.hits)[ranges.numbers]
    flipped = np.zeros(POPULATIONS, np.bool_)
    flipped[: ALL + 1] = model.kinds[model.table_of] >= FLIPS
    count = place_changes(
        words, members, revert, layout, ranges, scratch_for(words, ranges),
        flipped[ranges.numbers], ends - model.hits[ranges.numbers], ends, gaps, values,
        np.empty(len(ends), np.int64), positions, steps, results,
    )  # fmt: skip
    if count != entries:
        raise PatchFormatError("its body is corrupt, or was not made for these words")


def _members(groups: Groups | None) -> tuple[Groups, int]:
    """Groups as the loops take them, and how many there may be."""
    return (ONE_GROUP, 1) if groups is None else (groups, MOST_GROUPS)


@compiled
def _symbol_slots(starts: NDArray[np.int64]) -> Symbols:
    slots = np.zeros((starts.shape[0], SCALE), np.uint32)
    for table in range(starts.shape[0]):
        fill_symbols(starts[table], SYMBOLS, slots[table])
    return slots


@kernel
def _pop_changes(
    x: Integer, at: Integer, stream: Stack, model: Model, symbol_slots: Symbols,
    word_bits: Integer, limit: Integer, low_bits: NDArray[np.int64], tokens: NDArray[np.int64],
    level_slots: Symbols, gaps: NDArray[np.uint32], values: NDArray[np.int64],
) -> tuple[Integer, Integer]:  # fmt: skip
    """Pop the changes of all populations: gaps, and steps or flipped bits (0 if out of range)."""
    change = np.int64(0)
    for population in range(POPULATIONS):
        level = model.levels[population]
        table = model.table_of[population] if population < EDGES else np.int64(0)
        kind = model.kinds[table]
        end = change + model.hits[population]
        while change < end:
            gap, x, at = pop_geometric(x, at, stream, level, low_bits, tokens, level_slots, limit)
            gaps[change] = np.uint32(min(gap, limit))
            if population >= EDGES:
                values[change] = 0
            elif kind >= FLIPS:
                flips, x, at = pop_flips(x, at, stream, table, kind, symbol_slots, word_bits)
                values[change] = np.int64(flips)
            else:
                values[change], x, at = pop_step(
                    x, at, stream, table, kind, model.table_levels[table], symbol_slots,
                    word_bits, low_bits, tokens, level_slots,
                )  # fmt: skip
            change += 1
    return x, at
