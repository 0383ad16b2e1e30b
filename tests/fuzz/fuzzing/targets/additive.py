"""Codec 2: a hostile body, and what its components say."""

from __future__ import annotations

import numpy as np

from fuzzing.mutation import bodies
from fuzzing.mutation.draws import Draws
from fuzzing.target import Target, expect
from fuzzing.targets.chunks import Head, mutate_chunk, unpack
from patchc.formats.codecs import ADDITIVE
from patchc.formats.codecs.additive_values import (
    AdditiveComponent,
    AdditiveValues,
    ComponentEntries,
)
from patchc.formats.codecs.protocol import ChunkBody
from patchc.kernels.delta_values import from_int8

_MOST_WORDS = 200_000


def read(data: bytes) -> None:
    """Decode a body and its values, and code them again."""
    head, body = unpack(data, _MOST_WORDS)
    chunk = _chunk(head, body)
    found = ADDITIVE.decode_components(chunk)
    touched: set[int] = set()
    for one in found:
        at = one.positions.tolist()
        expect(at == sorted(set(at)) and at[-1] < head.words, "positions are out of order")
        expect(len(one.values) == len(at), "values are not as many")
        if len(one.absmax):
            numbers = from_int8(one.values, one.absmax)
            expect(not np.isnan(numbers).any(), "a value is no number")
        touched |= set(at)
    expect(len(touched) == head.entries, "entries are not as many")
    again = ADDITIVE.decode_components(_chunk(head, ADDITIVE.encode(found, head.words)))
    expect([*map(_listed, again)] == [*map(_listed, found)], "components do not survive")


def _chunk(head: Head, body: bytes) -> ChunkBody:
    count = 1 + (head.flags >> 1) % 16
    components = tuple(AdditiveComponent(f"c{i}", 1.0, 1) for i in range(count))
    values = AdditiveValues("int8" if head.flags & 1 else "bf16", components)
    return ChunkBody(body, head.entries, head.words, head.dtype, additive=values)


def _listed(one: ComponentEntries) -> list[object]:
    return [one.component, one.positions.tolist(), one.values.tolist(), one.absmax.tolist()]


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change what the patch says of the chunk, or its body."""
    return mutate_chunk(data, draws, _MOST_WORDS, bodies.mutate_additive)


TARGET = Target(
    "additive",
    read,
    mutate,
    (
        "patchc.formats.codecs.additive",
        "patchc.formats.codecs.gap_tiles",
        "patchc.formats.codecs.golomb",
        "patchc.kernels.delta_values",
    ),
    executions=3000,
    most_bytes=1 << 10,
)
