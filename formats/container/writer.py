"""Writes a patch file in one pass, never seeking back (SPEC.md, section 1).

The caller writes to a staged path (see :mod:`patchc.files`), so that a file that looks whole is
whole. Memory grows only with the records of changed chunks and files, not with the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from patchc.dtypes import DType, Words
from patchc.errors import UnsupportedInputError
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs import ADDITIVE, RICE
from patchc.formats.codecs.additive_values import ComponentEntries
from patchc.formats.codecs.protocol import Coding, ExactChanges, Groups
from patchc.formats.container import layout
from patchc.formats.container.column_codec import most_names
from patchc.formats.container.expansion import compress
from patchc.formats.container.file_changes import EncodedFile, find_fault
from patchc.formats.container.index import ChunkRecord, pack_index
from patchc.formats.container.metadata import has_too_many_values, pack_metadata
from patchc.formats.container.retention_masks import RetentionMask, check_masks
from patchc.formats.container.sealing import seal
from patchc.formats.container.tensors import TensorPair, TensorRecord
from patchc.hashing import DIGEST_BYTES, bodies_digest, files_digest, short
from patchc.kernels.histograms import Counts
from patchc.sides import Side


@dataclass(frozen=True)
class EncodedChunk:
    """A changed chunk, ready to be written.

    Attributes:
        record: its record, in which place and offset are not set yet.
        body: its coded bytes.
        digest: full digest of the body.
        bits: bits of positions and of steps in the body, where the codec tells them apart.
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
    base: Words | None = None,
    masks: int = 0,
    groups: Groups | None = None,
    word_counts: Counts | None = None,
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
        base: the words that the steps apply to, to code by them where that is shorter; None for a
            body that decodes without them.
        masks, groups: the retention masks in which the changes were selected, bit i for mask i of
            the table, and the groups that they make of ``base``. The body refers to them where that
            is shorter.
        word_counts: counts of ``base`` by ``groups``, as for :class:`ExactChanges`.
    """
    grouped = False
    if base is None:
        codec, coding = RICE.id, RICE.encode(positions, steps, words, dtype.word_bits)
    else:
        # Commands that only read patches start sooner without the encoder.
        from patchc.formats.codecs.shortest import encode_shortest

        changes = ExactChanges(base, positions, steps, dtype, groups, word_counts)
        codec, grouped, coding = encode_shortest(changes)
    record = ChunkRecord(
        number,
        codec,
        masks if grouped else 0,
        entries=len(positions),
        base_digest=short(base_digest),
        result_digest=short(result_digest),
    )
    return _with_body(record, coding)


def encode_deltas(
    number: int, components: Sequence[ComponentEntries], words: int, base_digest: bytes
) -> EncodedChunk:
    """Code what the components add to chunk ``number``; safe to call from several threads.

    Args:
        number: the chunk's place in its tensor's grid.
        components: those with entries in the chunk, in order; at least one.
        words: words in the chunk.
        base_digest: full digest of the chunk's base words.
    """
    touched = np.zeros(words, np.bool_)
    for component in components:
        touched[component.positions] = True
    entries = int(np.count_nonzero(touched))
    record = ChunkRecord(number, ADDITIVE.id, 0, entries, base_digest=short(base_digest))
    return _with_body(record, Coding(ADDITIVE.encode(components, words), ChangeBits()))


def _with_body(record: ChunkRecord, coding: Coding) -> EncodedChunk:
    digest = blake3(coding.body).digest()
    record = replace(record, length=len(coding.body), body_digest=short(digest))
    return EncodedChunk(record, coding.body, digest, coding.bits)


class PatchWriter:
    """Writes prologue, bodies, index, metadata and trailer to a binary file, in this order.

    Tensors come in the order of their names' bytes, those of the base and then those that only the
    result has; a tensor's chunks in grid order, then :meth:`end_pair` or :meth:`end_tensor`. Files
    that change follow, in the order of their names' bytes, and :meth:`finish` is last.

    Args:
        file: where to write; never sought in.
        chunk_words: words in a chunk, a power of two.
        features: bits of the features that a reader of this file must have.
        masks: the retention masks that chunks refer to by their place here.

    Raises:
        UnsupportedInputError: the masks are above the format's caps.
    """

    def __init__(
        self,
        file: BinaryIO,
        chunk_words: int = 1 << layout.DEFAULT_CHUNK_BITS,
        features: int = 0,
        masks: Sequence[RetentionMask] = (),
    ) -> None:
        check_masks(masks)
        self._file = file
        self._chunk_words = chunk_words
        self._features = features
        self._masks = tuple(masks)
        self._prologue = layout.pack_prologue(chunk_words)
        self._offset = len(self._prologue)
        self._tensors: list[TensorRecord] = []
        self._chunks: list[ChunkRecord] = []
        self._body_digests: list[bytes] = []
        self._files: list[EncodedFile] = []
        file.write(self._prologue)

    def add_chunk(self, chunk: EncodedChunk) -> None:
        """Append a changed chunk of the tensor that :meth:`end_tensor` will name."""
        place = len(self._chunks)
        self._chunks.append(replace(chunk.record, place=place, offset=self._offset))
        self._body_digests.append(chunk.digest)
        self._append(chunk.body)

    def end_tensor(self, name: str, dtype: DType, shape: Sequence[int], base_digest: bytes) -> None:
        """Record a tensor that both sides have, in one shape; see :meth:`end_pair`."""
        self.end_pair(TensorPair(name, dtype, tuple(shape), tuple(shape)), base_digest)

    def end_pair(self, pair: TensorPair, digest: bytes) -> None:
        """Record a tensor, changed or not, after its changed chunks.

        Args:
            pair: the tensor.
            digest: its full digest in the base, or in the result where only that has it.

        Raises:
            UnsupportedInputError: the name or the rank cannot stand in a patch file.
        """
        check_name(pair.name)
        for shape in (pair.base_shape, pair.result_shape):
            if shape is not None and len(shape) > layout.MAX_RANK:
                raise UnsupportedInputError(
                    f"tensor {pair.name!r} has {len(shape)} dimensions; a patch file holds "
                    f"{layout.MAX_RANK}"
                )
        start = self._tensors[-1].chunks.stop if self._tensors else 0
        chunks = range(start, len(self._chunks))
        pinned = len(chunks) == layout.chunks_in_grid(pair.words, self._chunk_words)
        stored = None if pinned else short(digest)
        self._tensors.append(TensorRecord.of(pair, stored, chunks))
        if not pair.is_plain:
            self._features |= layout.UPDATE

    def add_file(self, file: EncodedFile) -> None:
        """Append the change of a file."""
        self._files.append(file)
        self._body_digests.append(file.digests[0])
        self._append(file.body)
        self._features |= layout.UPDATE

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
        both_digests = self._files_digest("base"), self._files_digest("result")
        columns, digests = pack_index(
            (base_digest, result_digest),
            bodies_digest(b"".join(self._body_digests)),
            self._masks,
            self._tensors,
            self._chunks,
            files,
            both_digests if self._features & layout.UPDATE else None,
        )
        index_size = len(columns) + len(digests)
        text = pack_metadata(metadata)
        self._check_caps(index_size, text)
        stored_index = compress("index", [columns, digests], apart=True)
        trailer = layout.Trailer(self._offset, 0, index_size, 0, 0, self._features, bytes(32))
        end, root = seal(self._prologue, trailer, stored_index, text)
        self._append(end)
        return root

    def _check_caps(self, index_size: int, text: bytes) -> None:
        if len(text) > layout.MAX_METADATA or has_too_many_values(text):
            raise UnsupportedInputError(
                "the metadata, which lists the tensors that take part in a build, is larger than "
                "that of a patch file may be; let fewer take part"
            )
        named = sum(len(tensor.name.encode()) for tensor in self._tensors)
        if named > min(layout.MAX_NAMES, most_names(index_size)):
            raise UnsupportedInputError(
                "the names of the model's tensors are too long for a patch file; rename them"
            )
        many = len(self._tensors) > layout.MAX_TENSORS or len(self._chunks) > layout.MAX_CHUNKS
        if many or index_size > layout.MAX_INDEX:
            raise UnsupportedInputError(
                "the model has too many tensors or chunks for one patch file; raise chunk_bits"
            )

    def _files_digest(self, side: Side) -> bytes:
        named = [(file.record.name, file.digest_on(side)) for file in self._files]
        return files_digest((name, digest) for name, digest in named if digest is not None)

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)


def check_name(name: str) -> None:
    """Refuse a tensor name that a reader would refuse (SPEC.md, section 4).

    Raises:
        UnsupportedInputError: naming the tensor.
    """
    if not layout.is_tensor_name(name):
        raise UnsupportedInputError(
            f"tensor name {name[:80]!r} is empty, too long, path-like or not printable; rename it"
        )
