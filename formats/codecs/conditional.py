"""Codec 3, "conditional": changes coded given the words that they apply to (SPEC.md, section 6.4).

Small weights change before large ones, and by more steps; so positions and steps are coded by
classes of the words' exponents, with statistics that the chunk's own header states. The decoder
scans the chunk's words once, the base's going forward and the result's going back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from patchc.compiled import Integer, compiled, kernel, part
from patchc.dtypes import DType
from patchc.errors import PatchFormatError
from patchc.formats.bits import ChangeBits
from patchc.formats.codecs.classes import (
    COUNTERS,
    EDGES,
    MOST_GROUPS,
    NONE,
    POPULATIONS,
    Groups,
    Words,
    class_map,
    exponent_of,
)
from patchc.formats.codecs.codec import Coding, Positions, Steps
from patchc.formats.codecs.levels import level_tables, push_geometric
from patchc.formats.codecs.model import (
    FIELDS_OF_TABLE,
    OTHER_FIELDS,
    Model,
    empty_model,
    fill_classes,
    push_fields,
    read_model,
    table_starts,
    write_model,
)
from patchc.formats.codecs.plan import choose_levels, plan_model
from patchc.formats.codecs.rans import SCALE, Stack, Symbols, fill_symbols, pack, unpack
from patchc.formats.codecs.scan import rank_changes, scan
from patchc.formats.codecs.step_tokens import FLIPS, SYMBOLS, push_flips, push_step

CONDITIONAL_ID = 3
"""The codec's number in a patch file."""

_ONE_GROUP = np.zeros(1, np.uint8)
_MOST_WORDS_OF_CHANGE = 5
_PARAMETER_ERROR = "its body is corrupt, or was not made for these words"


def encode_conditional(
    words: Words, positions: Positions, steps: Steps, dtype: DType, groups: Groups | None = None
) -> Coding:
    """Code the changes of a chunk; the bytes depend on nothing but the arguments.

    Args:
        words: the chunk in the base; contiguous, of the dtype's word.
        positions: changed words, strictly increasing; at least one.
        steps: as many signed steps, none 0, within the word's bits.
        dtype: of the words.
        groups: for each word the retention masks that it lies in, bit m for mask m, below 4;
            None where there are no masks.
    """
    members, kinds = _members(groups)
    levels = level_tables()
    bits = levels.hit_bits, levels.miss_bits
    model = empty_model()
    classes = class_map(dtype, kinds, edges=True)
    plan_model(words, members, positions, steps, classes, kinds, dtype.word_bits, *bits, model)
    _, exponent_bits = exponent_of(dtype)
    fill_classes(model, kinds, exponent_bits, classes)
    populations, ranks = np.empty(len(positions), np.int32), np.empty(len(positions), np.uint32)
    flips, counts = np.empty(len(positions), np.uint64), np.zeros(COUNTERS, np.int64)
    rank_changes(words, members, positions, steps, classes, populations, ranks, flips, counts)
    gap_bits = choose_levels(
        model, kinds, populations, counts, steps, flips, dtype.word_bits, *bits
    )
    starts = _starts(model)
    fields = np.empty((len(starts) * FIELDS_OF_TABLE + OTHER_FIELDS, 2), np.int64)
    count = write_model(model, kinds, exponent_bits, fields)
    out = np.empty(_MOST_WORDS_OF_CHANGE * len(positions) + count + 2 * POPULATIONS, np.uint32)
    x, size = _push_changes(
        out, populations, ranks, steps, flips, counts, model, dtype.word_bits, levels.low_bits,
        levels.tokens, levels.starts, starts, np.empty(POPULATIONS, np.int64),
    )  # fmt: skip
    x, size = push_fields(np.uint64(x), size, out, fields, count)
    body = pack(int(x), out[:size])
    header_bits = int(fields[:count, 1].sum())
    step_bits = max(0.0, 8 * len(body) - header_bits - gap_bits)
    return Coding(body, ChangeBits(gap_bits, step_bits))


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
    if not 0 < entries <= len(words):
        raise PatchFormatError(f"its record says {entries} changes of {len(words)} words")
    members, kinds = _members(groups)
    _, exponent_bits = exponent_of(dtype)
    x, stream = unpack(body)
    model = empty_model()
    good, x, at = read_model(x, 0, stream, kinds, exponent_bits, model)
    if not good:
        raise PatchFormatError("its body is corrupt: a field of its header is out of range")
    classes = class_map(dtype, kinds, edges=bool((model.levels[EDGES:] != NONE).any()))
    fill_classes(model, kinds, exponent_bits, classes)
    levels = level_tables()
    positions, steps = np.empty(entries, np.uint32), np.empty(entries, np.int64)
    count, x, at = scan(
        np.uint64(x), at, stream, words, members, revert, classes, model,
        _symbol_slots(_starts(model)), dtype.word_bits, levels.low_bits, levels.tokens,
        levels.slots, np.empty(COUNTERS, np.int64), positions, steps,
    )  # fmt: skip
    if count < 0:
        raise PatchFormatError(_PARAMETER_ERROR)
    if count != entries:
        raise PatchFormatError(f"its body codes {count} changes and its record says {entries}")
    if x != 1 or at != len(stream):
        raise PatchFormatError("its body is corrupt: it holds bits that belong to nothing")
    return positions, steps


def _members(groups: Groups | None) -> tuple[Groups, int]:
    """Groups as the loops take them, and how many there may be."""
    return (_ONE_GROUP, 1) if groups is None else (groups, MOST_GROUPS)


def _starts(model: Model) -> NDArray[np.int64]:
    """First slots of the symbols of the model's tables."""
    starts = np.zeros((int(model.table_of.max()) + 1, SYMBOLS + 1), np.int64)
    table_starts(model, starts)
    return starts


@compiled
def _symbol_slots(starts: NDArray[np.int64]) -> Symbols:
    slots = np.zeros((starts.shape[0], SCALE), np.uint32)
    for table in range(starts.shape[0]):
        fill_symbols(starts[table], SYMBOLS, slots[table])
    return slots


@kernel
def _push_changes(
    out: Stack, populations: NDArray[np.int32], ranks: NDArray[np.uint32], steps: Steps,
    flips: NDArray[np.uint64], counts: NDArray[np.int64], model: Model, word_bits: Integer,
    low_bits: NDArray[np.int64], tokens: NDArray[np.int64], level_starts: NDArray[np.int64],
    starts: NDArray[np.int64], following: NDArray[np.int64],
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push all changes, last first, and then the first gaps; ``following`` is scratch."""
    x, at = np.uint64(1), np.int64(0)
    following[:] = NONE
    for change in range(populations.size - 1, -1, -1):
        population = populations[change]
        rank = np.int64(ranks[change])
        x, at = _push_gap(
            x, at, out, rank, following[population], counts[population],
            model.levels[population], low_bits, tokens, level_starts,
        )  # fmt: skip
        following[population] = rank
        if population < EDGES:
            table = model.table_of[population]
            if model.kinds[table] >= FLIPS:
                x, at = push_flips(
                    x, at, out, flips[change], table, model.kinds[table], starts, word_bits
                )
            else:
                x, at = push_step(
                    x, at, out, steps[change], table, model.kinds[table],
                    model.table_levels[table], starts, low_bits, tokens, level_starts,
                )  # fmt: skip
    for population in range(POPULATIONS - 1, -1, -1):
        if model.levels[population] != NONE:
            x, at = _push_gap(
                x, at, out, np.int64(-1), following[population], counts[population],
                model.levels[population], low_bits, tokens, level_starts,
            )  # fmt: skip
    return x, at


@part
def _push_gap(
    x: Integer, at: Integer, out: Stack, rank: Integer, following: Integer, count: Integer,
    level: Integer, low_bits: NDArray[np.int64], tokens: NDArray[np.int64],
    level_starts: NDArray[np.int64],
) -> tuple[Integer, Integer]:  # fmt: skip
    """Push the gap between two ranks; after the last, any gap that reaches the end will do."""
    gap = following - rank - 1
    if following == NONE:
        low = low_bits[level]
        gap = ((count - rank - 1 + (1 << low) - 1) >> low) << low
    return push_geometric(x, at, out, gap, level, low_bits, tokens, level_starts)
