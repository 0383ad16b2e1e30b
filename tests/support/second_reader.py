"""A reader of patch files written from formats/SPEC.md alone, in plain Python.

It shares no code with patchc and is as slow as it is short. It reads well-formed files.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from blake3 import blake3
from conditional_oracle import conditional
from second_codecs import additive, rice

WORD_BYTES = dict(
    zip(range(1, 23), [1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 4, 2, 2, *[1] * 8, 8], strict=True)
)
FLOATS = {10: "F64", 11: "F32", 12: "F16", 13: "BF16", 14: "F8_E4M3", 15: "F8_E5M2"}
"""The dtypes of section 6.4.5."""
BITS = {code: 8 * size for code, size in WORD_BYTES.items()} | {19: 6, 20: 6, 21: 4}


@dataclass(frozen=True)
class Tensor:
    dtype: int
    shape: tuple[int, ...]
    digest: bytes | None
    changes: dict[int, int]
    """Position in the tensor → step."""
    deltas: list[dict[int, float]]
    """Of an additive file: for each component, position in the tensor → value."""
    result_shape: tuple[int, ...] | None
    """In an update it may be another, or None where only the base has the tensor."""
    reference: str | None = None


@dataclass(frozen=True)
class File:
    """A file of an update: its content on a side follows from that on the other."""

    role: int
    prefix: int
    suffix: int
    middles: tuple[bytes, bytes]

    def on(self, side: int, other: bytes | None) -> bytes | None:
        """The content on side 0, the base, or 1, the result."""
        if not self.role >> side & 1:
            return None
        if other is None:
            return self.middles[side]
        return other[: self.prefix] + self.middles[side] + other[len(other) - self.suffix :]


@dataclass(frozen=True)
class Update:
    """The update columns of section 4.7 and 4.8, expanded but not interpreted."""

    fates: list[int]
    result_ranks: list[int]
    result_dims: list[int]
    added: int
    shared: list[int]
    rests: list[bytes]
    codes: list[int]
    ranks: list[int]
    dims: list[int]
    counts: list[int]
    references: list[int]
    files: int
    file_shared: list[int]
    file_rests: list[bytes]
    roles: list[int]
    prefixes: list[int]
    suffixes: list[int]
    base_middles: list[int]
    result_middles: list[int]
    lengths: list[int]


@dataclass(frozen=True)
class Index:
    """The columns of section 4.1, expanded but not interpreted."""

    tensors: int
    chunks: int
    masks: list[tuple[str, int, int]]
    shared: list[int]
    rests: list[bytes]
    codes: list[int]
    ranks: list[int]
    dims: list[int]
    counts: list[int]
    skips: list[int]
    codecs: list[int]
    mask_rows: list[int]
    entries: list[int]
    lengths: list[int]
    base_digest: bytes
    result_digest: bytes
    bodies_digest: bytes
    tensor_digests: list[bytes]
    body_digests: list[bytes]
    base_digests: list[bytes]
    result_digests: list[bytes]
    update: Update | None = None
    files_digests: tuple[bytes, ...] = ()
    file_digests: tuple[list[bytes], ...] = ()


Sides = Mapping[str, list[int]]
"""The words of each tensor on one side."""


def read(
    data: bytes, words: Sides | None = None, revert: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a file, every digest of the file itself checked.

    The name of a tensor that only the result has begins with a plus sign here. Words are those of
    the base or, with ``revert``, of the result; bodies of codec 3 need them.
    """
    tensors, _, metadata = read_update(data, words, revert)
    return tensors, metadata


def read_update(
    data: bytes, words: Sides | None = None, revert: bool = False
) -> tuple[dict[str, Tensor], dict[str, File], dict[str, Any]]:
    """The same, and the files of an update."""
    trailer = data[-96:]
    index_at, index_stored, index_size, meta_stored, meta_size, features = struct.unpack(
        "<6Q", trailer[:48]
    )
    assert data[:12] == b"PATCHC\r\n" + struct.pack("<HH", 2, 0)
    assert trailer[80:] == bytes(8) + b"\r\nPATCHC"
    assert features in (0, 1, 2)
    index_bytes = data[index_at : index_at + index_stored]
    meta_bytes = data[index_at + index_stored : -96]
    assert len(meta_bytes) == meta_stored
    root = blake3(derive_key_context="patchc 2026-11 v1 root")
    for part in (data[:16], index_bytes, meta_bytes, trailer[:48]):
        root.update(part)
    assert root.digest() == trailer[48:80]
    index, meta = zlib.decompress(index_bytes), zlib.decompress(meta_bytes)
    assert (len(index), len(meta)) == (index_size, meta_size)
    metadata = json.loads(meta)
    values = metadata["additive"] if features == 1 else None
    columns = read_index(index, features == 2)
    sides = words or {}, revert
    return *_bodies(data, columns, index_at, 1 << data[12], values, sides), metadata


def read_index(index: bytes, is_update: bool = False) -> Index:
    """The columns of an expanded index, by their counts alone: tensor digests fill what is left."""
    at = 0

    def take(length: int) -> bytes:
        nonlocal at
        at += length
        assert at <= len(index)
        return index[at - length : at]

    def numbers(count: int) -> list[int]:
        width = take(1)[0]
        assert 1 <= width <= 8
        planes = [take(count) for _ in range(width)]
        return [sum(plane[i] << 8 * k for k, plane in enumerate(planes)) for i in range(count)]

    def digests(count: int) -> list[bytes]:
        return [take(8) for _ in range(count)]

    def table(count: int) -> tuple[list[Any], ...]:
        shared, lengths = numbers(count), numbers(count)
        rests = [take(length) for length in lengths]
        codes, ranks = list(take(count)), list(take(count))
        return shared, rests, codes, ranks, numbers(sum(ranks)), numbers(count)

    def update_columns() -> Update:
        fates = list(take(tensors))
        ranks = list(take(fates.count(1)))
        dims = numbers(sum(ranks))
        (added,) = numbers(1)
        columns = table(added)
        references = numbers(fates.count(2) + added)
        (files,) = numbers(1)
        shared, lengths = numbers(files), numbers(files)
        rests = [take(length) for length in lengths]
        roles = list(take(files))
        sizes = [numbers(files) for _ in range(5)]
        return Update(
            fates, ranks, dims, added, *columns, references, files, shared, rests, roles, *sizes
        )

    tensors, chunks = struct.unpack("<II", take(8))
    masks = []
    for _ in range(take(1)[0]):
        name = take(take(1)[0]).decode()
        masks.append((name, *struct.unpack("<QQ", take(16))))
    columns = table(tensors)
    skips = numbers(chunks)
    codecs = list(take(chunks))
    mask_rows = numbers(chunks) if masks else [0] * chunks
    entries, sizes = numbers(chunks), numbers(chunks)
    update = update_columns() if is_update else None
    files = update.files if update else 0
    whole = [take(32) for _ in range(3)]
    files_digests = (take(32), take(32)) if update else ()
    pinless = (len(index) - at) // 8 - 3 * chunks - 3 * files
    read = Index(
        tensors, chunks, masks, *columns, skips, codecs, mask_rows, entries, sizes, *whole,
        digests(pinless), digests(chunks), digests(chunks), digests(chunks),
        update, files_digests, tuple(digests(files) for _ in range(3)),
    )  # fmt: skip
    assert at == len(index)
    return read


@dataclass(frozen=True)
class Row:
    """A tensor as sections 4.1 and 4.7 describe it: fate 3 is for one that only the result has."""

    name: str
    code: int
    shapes: list[tuple[int, ...] | None]
    fate: int
    count: int

    @property
    def words(self) -> int:
        sizes = [prod(shape) for shape in self.shapes if shape is not None]
        return max(sizes) * BITS[self.code] // (8 * WORD_BYTES[self.code])


def names_of(shared: list[int], rests: list[bytes]) -> list[str]:
    """The names of section 4.5."""
    names, raw = [], b""
    for kept, rest in zip(shared, rests, strict=True):
        raw = raw[:kept] + rest
        names.append(raw.decode())
    return names


def rows_of(index: Index) -> list[Row]:
    """All tensors, those of the base first."""
    rows: list[Row] = []
    fates = index.update.fates if index.update else [0] * index.tensors
    dims = iter(index.dims)
    result_ranks = iter(index.update.result_ranks if index.update else [])
    result_dims = iter(index.update.result_dims if index.update else [])
    names = names_of(index.shared, index.rests)
    for name, code_number, rank, fate, count in zip(
        names, index.codes, index.ranks, fates, index.counts, strict=True
    ):
        shape: tuple[int, ...] | None = tuple(next(dims) for _ in range(rank))
        result = {0: shape, 2: None}.get(fate)
        if fate == 1:
            result = tuple(next(result_dims) for _ in range(next(result_ranks)))
        rows.append(Row(name, code_number, [shape, result], fate, count))
    if index.update:
        dims = iter(index.update.dims)
        names = names_of(index.update.shared, index.update.rests)
        columns = (index.update.codes, index.update.ranks, index.update.counts)
        for name, code_number, rank, count in zip(names, *columns, strict=True):
            shape = tuple(next(dims) for _ in range(rank))
            rows.append(Row(name, code_number, [None, shape], 3, count))
    return rows


def _bodies(
    data: bytes,
    index: Index,
    index_at: int,
    chunk_words: int,
    values: dict[str, Any] | None,
    sides_words: tuple[Sides, bool],
) -> tuple[dict[str, Tensor], dict[str, File]]:
    if values:
        assert not any(index.result_digest + b"".join(index.result_digests))
    tensor_digests = iter(index.tensor_digests)
    bodies = blake3(derive_key_context="patchc 2026-11 v1 bodies")
    result: dict[str, Tensor] = {}
    number, body_at = 0, 16

    def body_of(length: int, digest: bytes) -> bytes:
        nonlocal body_at
        body = data[body_at : body_at + length]
        body_at += length
        full = blake3(body).digest()
        assert full[:8] == digest
        bodies.update(full)
        return body

    rows = rows_of(index)
    references = iter(index.update.references if index.update else [])
    sides = [sorted((r.name for r in rows if r.fate != side), key=str.encode) for side in (3, 2)]
    for row in rows:
        width = 8 * WORD_BYTES[row.code]
        changes: dict[int, int] = {}
        deltas: list[dict[int, float]] = [{} for _ in values["components"]] if values else []
        first = 0
        for _ in range(row.count):
            body = body_of(index.lengths[number], index.body_digests[number])
            first += index.skips[number] * chunk_words
            size = min(chunk_words, row.words - first)
            if values:
                assert index.codecs[number] == 2
                parts = additive(body, size, values["value_type"])
                assert len(set().union(*parts.values())) == index.entries[number]
                for component, found in parts.items():
                    deltas[component] |= {first + p: value for p, value in found.items()}
            else:
                if index.codecs[number] == 3:
                    words, revert = sides_words
                    own = words["+" * (row.fate == 3) + row.name][first : first + size]
                    members = groups(index, number, row.name, first, size)
                    dtype = FLOATS.get(row.code, "")
                    entries = index.entries[number]
                    decoded = conditional(body, own, entries, dtype, width, revert, members)
                else:
                    assert (index.codecs[number], index.mask_rows[number]) == (1, 0)
                    decoded = rice(body, size, width)
                assert len(decoded) == index.entries[number]
                changes |= {first + position: step for position, step in decoded}
            first += chunk_words
            number += 1
        digest = None if row.count == -(-row.words // chunk_words) else next(tensor_digests)
        reference = next(references) if row.fate > 1 else 0
        shape = row.shapes[row.fate == 3]
        assert shape is not None
        result["+" * (row.fate == 3) + row.name] = Tensor(
            row.code, shape, digest, changes, deltas, row.shapes[1],
            sides[row.fate == 2][reference - 1] if reference else None,
        )  # fmt: skip
    assert not list(tensor_digests) + list(references)
    files: dict[str, File] = {}
    if index.update:
        u = index.update
        columns = (u.roles, u.prefixes, u.suffixes, u.base_middles, u.result_middles, u.lengths)
        names = names_of(u.file_shared, u.file_rests)
        for i, (name, role, prefix, suffix, base, after, length) in enumerate(
            zip(names, *columns, strict=True)
        ):
            middles = zlib.decompress(body_of(length, index.file_digests[0][i]))
            assert len(middles) == base + after
            files[name] = File(role, prefix, suffix, (middles[:base], middles[base:]))
    assert (number, body_at) == (index.chunks, index_at)
    assert bodies.digest() == index.bodies_digest
    for component_number, component in enumerate(values["components"] if values else []):
        found_entries = sum(len(t.deltas[component_number]) for t in result.values())
        assert component["entries"] == found_entries
    return result, files


def draw(component: str, seed: int, tensor: str, position: int) -> int:
    """The draw of section 4.6 for one entry of a tensor; a mask keeps it where it is below."""
    stream = blake3(component.encode() + b"\0" + tensor.encode()).digest()
    counter = [*struct.unpack("<2I", struct.pack("<Q", position // 4))]
    counter += struct.unpack("<2I", stream[:8])
    key = list(struct.unpack("<2I", struct.pack("<Q", seed)))
    for _ in range(10):
        p, q = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (q >> 32) ^ counter[1] ^ key[0],
            q % 2**32,
            (p >> 32) ^ counter[3] ^ key[1],
            p % 2**32,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter[position % 4]


def groups(index: Index, chunk: int, tensor: str, first: int, size: int) -> list[int] | None:
    """The groups of section 6.4.6, of the words of a chunk; None where it has no masks."""
    rows = index.mask_rows[chunk]
    assert rows < 1 << len(index.masks)
    masks = [mask for i, mask in enumerate(index.masks) if rows >> i & 1]
    if not masks:
        return None
    members = []
    for position in range(first, first + size):
        kept = [draw(name, seed, tensor, position) < limit for name, seed, limit in masks]
        if len(masks) < 3:
            members.append(sum(2**m for m, keeps in enumerate(kept) if keeps))
        else:
            members.append(min(sum(kept), 3))
    return members
