"""Writes a patch file in one pass, never seeking back (SPEC.md, section 1).

The caller writes to a staged path (see :mod:`patchc.files`), so that a file which looks whole is
whole. Memory grows with the number of changed chunks' records alone, not with the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from patchc.dtypes import DType
from patchc.errors import UnsupportedInputError
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs import ADDITIVE_ID, RICE, ComponentEntries
from patchc.formats.codecs.additive import encode_additive
from patchc.formats.codecs.conditional.model.classes import Groups
from patchc.formats.codecs.protocol import Coding
from patchc.formats.codecs.shortest import encode_shortest
from patchc.formats.container.file_changes import EncodedFile, find_fault
from patchc.formats.container.index import ChunkRecord, pack_index
from patchc.formats.container.layout import (
    DEFAULT_CHUNK_BITS,
    MAX_CHUNKS,
    MAX_INDEX,
    MAX_METADATA,
    MAX_NAMES,
    MAX_RANK,
    MAX_TENSORS,
    TRAILER_ROOT_OFFSET,
    UPDATE,
    Trailer,
    chunks_in_grid,
    compress,
    is_tensor_name,
    pack_prologue,
)
from patchc.formats.container.retention_masks import RetentionMask, check_masks
from patchc.formats.container.tensors import TensorPair, TensorRecord
from patchc.hashing import (
    DIGEST_BYTES,
    SHORT_DIGEST_BYTES,
    bodies_digest,
    files_digest,
    root_digest,
    short,
)
from patchc.kernels.histograms import Counts


@dataclass(frozen=True)
class EncodedChunk:
    """A changed chunk, ready to be written; its record lacks only row and offset.

    ``digest`` is the full digest of the body, and ``bits`` what positions and steps take of it,
    where the codec tells them apart.
    """

    record: ChunkRecord
    body: bytes
    digest: bytes
    bits: ChangeBits


def encode_chunk(
    number: int,
    positions: NDArray[np.uint32],
    steps: NDArray[np.int64],
    words: int,
    dtype: DType,
    base_digest: bytes,
    result_digest: bytes,
    base: NDArray[np.unsignedinteger] | None = None,
    masks: int = 0,
    groups: Groups | None = None,
    held: Counts | None = None,
) -> EncodedChunk:
    """Code the changes of chunk ``number``; safe to call from several threads.

    Args:
        number: the chunk's place in its tensor's grid.
        positions: changed words within the chunk, strictly increasing; at least one.
        steps: as many signed steps, none 0.
        words: words in the chunk.
        dtype: of the words.
        base_digest: full digest of the chunk's base words.
        result_digest: full digest of the words after the change.
        base: the words that the steps apply to, by which they are coded where that is shorter; None
            for a body that decodes without them.
        masks, groups: rows of the table of retention masks in which the changes were selected, bit
            i for row i, and the groups that they make of ``base``; the body refers to them where
            that is shorter.
        held: of ``base`` and ``groups``, as for :class:`ChunkEncoder`.
    """
    grouped = False
    if base is None:
        codec, coding = RICE.id, RICE.encode(positions, steps, words, dtype.word_bits)
    else:
        codec, grouped, coding = encode_shortest(base, positions, steps, dtype, groups, held)
    rows = masks if grouped else 0
    return _chunk(number, codec, rows, len(positions), coding, base_digest, result_digest)


def encode_deltas(
    number: int, parts: Sequence[ComponentEntries], words: int, base_digest: bytes
) -> EncodedChunk:
    """Code what the components add to chunk ``number``; safe to call from several threads.

    Args:
        number: the chunk's place in its tensor's grid.
        parts: the components that have entries in the chunk, in order; at least one.
        words: words in the chunk.
        base_digest: full digest of the chunk's base words.
    """
    body = encode_additive(parts, words)
    touched = np.zeros(words, np.bool_)
    for part in parts:
        touched[part.positions] = True
    entries = int(np.count_nonzero(touched))
    coding = Coding(body, ChangeBits())
    return _chunk(number, ADDITIVE_ID, 0, entries, coding, base_digest, bytes(SHORT_DIGEST_BYTES))


def _chunk(
    number: int,
    codec: int,
    masks: int,
    entries: int,
    coding: Coding,
    base_digest: bytes,
    result_digest: bytes,
) -> EncodedChunk:
    digest = blake3(coding.body).digest()
    record = ChunkRecord(
        row=0,
        number=number,
        codec=codec,
        masks=masks,
        entries=entries,
        offset=0,
        length=len(coding.body),
        body_digest=short(digest),
        base_digest=short(base_digest),
        result_digest=short(result_digest),
    )
    return EncodedChunk(record, coding.body, digest, coding.bits)


class PatchWriter:
    """Writes prologue, bodies, index, metadata and trailer to a binary file, in this order.

    Tensors come in the order of their names' bytes, those of the base and then those that only the
    result has; a tensor's chunks in grid order, then :meth:`end_pair` or :meth:`end_tensor`. Files
    that change follow, in the order of their names' bytes, and :meth:`finish` is last.

    Args:
        file: where to write; never sought in.
        chunk_bits: log2 of the words in a chunk.
        features: bits of the features that a reader of this file must have.
        masks: the retention masks that chunks refer to by their place here.

    Raises:
        UnsupportedInputError: the masks are above the format's caps.
    """

    def __init__(
        self,
        file: BinaryIO,
        chunk_bits: int = DEFAULT_CHUNK_BITS,
        features: int = 0,
        masks: Sequence[RetentionMask] = (),
    ) -> None:
        check_masks(masks)
        self._file = file
        self._chunk_bits = chunk_bits
        self._features = features
        self._masks = tuple(masks)
        self._prologue = pack_prologue(chunk_bits)
        self._offset = len(self._prologue)
        self._tensors: list[TensorRecord] = []
        self._chunks: list[ChunkRecord] = []
        self._body_digests: list[bytes] = []
        self._files: list[EncodedFile] = []
        file.write(self._prologue)

    def add_chunk(self, chunk: EncodedChunk) -> None:
        """Append a changed chunk of the tensor that :meth:`end_tensor` will name."""
        row = len(self._chunks)
        self._chunks.append(replace(chunk.record, row=row, offset=self._offset))
        self._body_digests.append(chunk.digest)
        self._append(chunk.body)

    def end_tensor(self, name: str, dtype: DType, shape: Sequence[int], base_digest: bytes) -> None:
        """Record a tensor that both sides have, in one shape; see :meth:`end_pair`."""
        self.end_pair(TensorPair(name, dtype, tuple(shape), tuple(shape)), base_digest)

    def end_pair(self, row: TensorPair, digest: bytes) -> None:
        """Record a tensor, changed or not, after its changed chunks.

        Args:
            row: the tensor.
            digest: its full digest in the base, or in the result where only that has it.

        Raises:
            UnsupportedInputError: the name or the rank cannot stand in a patch file.
        """
        check_name(row.name)
        for shape in (row.base_shape, row.result_shape):
            if shape is not None and len(shape) > MAX_RANK:
                raise UnsupportedInputError(
                    f"tensor {row.name!r} has {len(shape)} dimensions; a patch file holds "
                    f"{MAX_RANK}"
                )
        start = self._tensors[-1].chunks.stop if self._tensors else 0
        rows = range(start, len(self._chunks))
        pinned = len(rows) == chunks_in_grid(row.words, self._chunk_bits)
        record = TensorRecord(**vars(row), digest=None if pinned else short(digest), chunks=rows)
        self._tensors.append(record)
        if not row.is_plain:
            self._features |= UPDATE

    def add_file(self, file: EncodedFile) -> None:
        """Append the change of a file."""
        self._files.append(file)
        self._body_digests.append(file.digests[0])
        self._append(file.body)
        self._features |= UPDATE

    def finish(
        self, metadata: Mapping[str, Any], base_digest: bytes, result_digest: bytes | None
    ) -> bytes:
        """Write index, metadata and trailer; return the root digest.

        Args:
            metadata: JSON values.
            base_digest: full digest of the base model.
            result_digest: full digest of the patched model; None for additive values.

        Raises:
            UnsupportedInputError: index or metadata are above the format's caps.
        """
        result_digest = result_digest or bytes(DIGEST_BYTES)
        files = [file.record for file in self._files]
        fault = find_fault(files)
        if fault:
            raise UnsupportedInputError(f"the patch {fault}; move some of them elsewhere")
        columns, digests = pack_index(
            (base_digest, result_digest),
            bodies_digest(b"".join(self._body_digests)),
            self._masks,
            self._tensors,
            self._chunks,
            files,
            self._files_digests() if self._features & UPDATE else None,
        )
        index_size = len(columns) + len(digests)
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        named = sum(len(tensor.name.encode()) for tensor in self._tensors)
        many = len(self._tensors) > MAX_TENSORS or named > MAX_NAMES
        many |= len(self._chunks) > MAX_CHUNKS
        if many or index_size > MAX_INDEX or len(text) > MAX_METADATA:
            raise UnsupportedInputError(
                "the model has too many tensors or chunks for one patch file; raise chunk_bits"
            )
        stored_index, stored_text = compress(columns, digests), compress(text)
        trailer = Trailer(
            index_offset=self._offset,
            index_stored=len(stored_index),
            index_size=index_size,
            metadata_stored=len(stored_text),
            metadata_size=len(text),
            features=self._features,
            root=bytes(32),
        )
        head = trailer.pack()[:TRAILER_ROOT_OFFSET]
        root = root_digest((self._prologue, stored_index, stored_text, head))
        self._append(stored_index + stored_text + replace(trailer, root=root).pack())
        return root

    def _files_digests(self) -> tuple[bytes, bytes]:
        sides: list[list[tuple[str, bytes]]] = [[], []]
        for file in self._files:
            for side, digest in zip(sides, file.digests[1:], strict=True):
                if digest is not None:
                    side.append((file.record.name, digest))
        return files_digest(sides[0]), files_digest(sides[1])

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)


def check_name(name: str) -> None:
    """Refuse a tensor name that a reader would refuse (SPEC.md, section 4).

    Raises:
        UnsupportedInputError: naming the tensor.
    """
    if not is_tensor_name(name):
        raise UnsupportedInputError(
            f"tensor name {name[:80]!r} is empty, too long, path-like or not printable; rename it"
        )
