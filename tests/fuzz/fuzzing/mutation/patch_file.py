"""Changes patch files, and makes root, digests, sizes and streams fit what they say then."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from blake3 import blake3
from forged_patch import Parts, pack_index
from second_reader import Index, Update, read_index

from fuzzing.mutation import bodies, json_text
from fuzzing.mutation.draws import Draws
from patchc.formats.container.layout import PROLOGUE, TRAILER, UPDATE
from patchc.hashing import bodies_digest

_MOST_EXPANDED = 1 << 20
_BODIES = {1: bodies.mutate_rice, 2: bodies.mutate_additive}
_NUMBERS = {
    "tensors": 32, "chunks": 32, "added": 32, "files": 32, "shared": 16, "codes": 8, "ranks": 8,
    "dims": 64, "counts": 32, "skips": 32, "codecs": 8, "mask_rows": 16, "entries": 32,
    "fates": 8, "result_ranks": 8, "result_dims": 64, "references": 32, "file_shared": 16,
    "roles": 8, "prefixes": 32, "suffixes": 32, "base_middles": 32, "result_middles": 32,
}  # fmt: skip
"""Columns of numbers, and the bits that each may have."""

_NAMES = (b"", b"/", b"..", b"a/../b", b"\0", b"\x1b[2J", b"\xff", "\u202e".encode(), b"A" * 300)
_UNREADABLE = (
    ValueError, IndexError, KeyError, StopIteration, struct.error, AssertionError, OverflowError,
    zlib.error, MemoryError,
)  # fmt: skip


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change a patch file; often only one part of it, with digests that fit."""
    if draws.chance(0.1):
        return draws.plain(data, len(data) + 64)
    with suppress(*_UNREADABLE):
        return _mutated(_tear(data), draws).assemble()
    return draws.plain(data, len(data) + 64)


def with_text(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A patch file with other metadata."""
    parts = _tear(data)
    return parts.but(metadata=change(parts.metadata)).assemble()


def _tear(data: bytes) -> Parts:
    offset, stored, _, metadata_stored, _, features, *_ = TRAILER.unpack(data[-TRAILER.size :])
    end = offset + stored
    return Parts(
        prologue=data[: PROLOGUE.size],
        bodies=data[PROLOGUE.size : offset],
        index=_expand(data[offset:end]),
        metadata=_expand(data[end : end + metadata_stored]),
        features=features,
    )


def _expand(stored: bytes) -> bytes:
    return zlib.decompressobj().decompress(stored, _MOST_EXPANDED)


def _mutated(parts: Parts, draws: Draws) -> Parts:
    how = draws.randrange(20)
    if how < 8:
        return _with_columns(parts, draws)
    if how < 13:
        return _with_body(parts, draws)
    if how < 15:
        return parts.but(index=draws.plain(parts.index, len(parts.index) + 64))
    if how < 18:
        return parts.but(metadata=json_text.mutate(parts.metadata, draws))
    if how == 18:
        return _with_trailer(parts, draws)
    prologue = draws.plain(parts.prologue, PROLOGUE.size).ljust(PROLOGUE.size, b"\0")
    return parts.but(prologue=prologue)


def _with_trailer(parts: Parts, draws: Draws) -> Parts:
    near = {
        "features": parts.features,
        "signature": 0,
        "index_size": len(parts.index),
        "metadata_size": len(parts.metadata),
        "index_offset": len(parts.prologue) + len(parts.bodies),
    }
    name = draws.choice([*near])
    return parts.but(**{name: draws.number(near[name])})


def _with_columns(parts: Parts, draws: Draws) -> Parts:
    index = read_index(parts.index, parts.features == UPDATE)
    for _ in range(draws.choice((1, 1, 2, 4))):
        if index.update and draws.chance(0.5):
            index = replace(index, update=_other_column(index.update, draws))
        else:
            index = _other_column(index, draws)
    return parts.but(index=pack_index(index))


def _other_column(table: Any, draws: Draws) -> Any:
    """An index, or its update columns, with one of the columns changed."""
    name = draws.choice([field.name for field in fields(table) if field.name != "update"])
    value = getattr(table, name)
    return replace(table, **{name: _other_value(name, value, draws)})


def _other_value(name: str, value: Any, draws: Draws) -> Any:
    bits = _NUMBERS.get(name, 32)
    if isinstance(value, int):
        return draws.number(value, bits)
    if isinstance(value, bytes):
        return draws.plain(value, len(value)).ljust(len(value), b"\0")
    if name == "masks":
        masks = [*value, (draws.choice(("se", "osm", "", "\0")), draws.number(), draws.number())]
        return masks[draws.randrange(2) :]
    if name.endswith("rests"):
        names = list(value)
        at = draws.randint(0, len(names))
        names[at : at + draws.randrange(2)] = [draws.choice((*_NAMES, draws.randbytes(3)))]
        return names
    if name.endswith("digests"):
        return list(value)[draws.randrange(2) :]
    return draws.changed(value, bits)


def _with_body(parts: Parts, draws: Draws) -> Parts:
    """Another body for a chunk or a file, or the same for other records, with digests that fit."""
    index = read_index(parts.index, parts.features == UPDATE)
    update = index.update
    lengths = [*index.lengths, *(update.lengths if update else ())]
    stored, at = [], 0
    for length in lengths:
        stored.append(parts.bodies[at : at + length])
        at += length
    if not stored:
        return parts
    place = draws.place(stored)
    chunks = len(index.lengths)
    if place < chunks:
        change = _BODIES.get(index.codecs[place], bodies.mutate_bits)
        stored[place] = change(stored[place], draws)
        if draws.chance(0.3):
            entries = list(index.entries)
            entries[place] = draws.number(entries[place], 32)
            index = replace(index, entries=entries)
    else:
        stored[place] = _other_stream(stored[place], draws)
    return _with_bodies(parts, index, update, stored)


def _with_bodies(parts: Parts, index: Index, update: Update | None, stored: list[bytes]) -> Parts:
    chunks = len(index.lengths)
    digests = [blake3(body).digest() for body in stored]
    short = [digest[:8] for digest in digests]
    sizes = [len(body) for body in stored]
    if update:
        update = replace(update, lengths=sizes[chunks:])
    file_digests = (short[chunks:], *index.file_digests[1:]) if index.file_digests else ()
    index = replace(
        index,
        update=update,
        lengths=sizes[:chunks],
        bodies_digest=bodies_digest(b"".join(digests)),
        body_digests=short[:chunks],
        file_digests=file_digests,
    )
    return parts.but(bodies=b"".join(stored), index=pack_index(index))


def _other_stream(body: bytes, draws: Draws) -> bytes:
    """Another content, compressed again; or a stream that is damaged or has bytes behind it."""
    if draws.chance(0.3):
        return draws.plain(body, len(body) + 16)
    content = draws.plain(_expand(body), 1 << 12)
    return zlib.compress(content * draws.choice((1, 1, 1, 100)))
