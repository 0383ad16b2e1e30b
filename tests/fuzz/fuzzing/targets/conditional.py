"""Codec 3: a hostile body, what it does to words and back, and what the page says of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial

import conditional_oracle as oracle
import numpy as np

from fuzzing.mutation import bodies
from fuzzing.mutation.draws import Draws
from fuzzing.target import Target, expect
from fuzzing.targets.chunks import are_changes, groups_of, mutate_head, unpack, words_of
from patchc.errors import PatchFormatError
from patchc.formats.codecs import CONDITIONAL
from patchc.formats.codecs.protocol import ChunkBody
from patchc.kernels.ulp_steps.cpu import add_steps
from patchc.sides import OTHER, Side

_MOST_WORDS = 700
_GROUPED, _REVERTED = 1, 2


def read(data: bytes) -> None:
    """Decode a body both ways, and as the page says; change words by it and back."""
    head, body = unpack(data, _MOST_WORDS)
    grouped, reverted = bool(head.flags & _GROUPED), bool(head.flags & _REVERTED)
    words, groups = words_of(head), groups_of(head) if grouped else None
    chunk = ChunkBody(body, head.entries, head.words, head.dtype, groups)
    target: Side = "base" if reverted else "result"
    members = groups.tolist() if groups is not None else None
    wanted = None
    if 0 < head.entries <= head.words:
        with suppress(oracle.CorruptError):
            name, bits = head.dtype.name, head.dtype.word_bits
            wanted = oracle.conditional(
                body, words.tolist(), head.entries, name, bits, reverted, members
            )
    try:
        positions, steps = CONDITIONAL.decode(chunk, words, target)
    except PatchFormatError:
        expect(wanted is None, "the page says what it codes")
        raise
    expect(are_changes(head, positions, steps), "the changes are not those of such a chunk")
    both = list(zip(positions.tolist(), steps.tolist(), strict=True))
    expect(both == wanted, "the page says otherwise")
    changed, added = words.copy(), words.copy()
    CONDITIONAL.change_words(chunk, changed, target)
    add_steps(added, positions, steps, head.dtype.total_order, reverted)
    expect(np.array_equal(changed, added), "words change otherwise than listed")
    CONDITIONAL.change_words(chunk, changed, OTHER[target])
    expect(np.array_equal(changed, words), "the changes do not go back")


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change what the patch says of the chunk, or what its body gives."""
    head, body = unpack(data, _MOST_WORDS)
    if draws.chance(0.3):
        head = mutate_head(head, draws)
        head = replace(head, words=1 + (head.words - 1) % _MOST_WORDS)
        change = bodies.repair_conditional
    elif draws.chance(0.1):
        return head.pack(bodies.mutate_bits(body, draws))
    else:
        change = partial(bodies.mutate_conditional, draws=draws)
    if not 0 < head.entries <= head.words:
        return head.pack(body)
    groups = 4 if head.flags & _GROUPED else 1
    name, width = head.dtype.name, head.dtype.word_bits
    told = {"dtype": name, "width": width, "groups": groups}
    return head.pack(change(body, words=head.words, entries=head.entries, **told))


TARGET = Target(
    "conditional",
    read,
    mutate,
    (
        "patchc.formats.codecs.conditional.__init__",
        "patchc.formats.codecs.conditional.decode",
        "patchc.formats.codecs.conditional.model",
        "patchc.kernels.ulp_steps.cpu",
    ),
    executions=700,
    most_bytes=1 << 10,
)
