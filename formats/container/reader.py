"""Reads a patch file: trailer, index and metadata at once, chunk bodies on demand.

The file is taken to come from a stranger. Everything is checked before it is used, and nothing is
allocated beyond what the file's size or a tensor's own size justifies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from blake3 import blake3

from patchc.dtypes import DType, Words
from patchc.errors import PatchcError, PatchFormatError, UnsupportedPatchError, UsageError
from patchc.formats.codecs import ADDITIVE_ID, CODECS, CONDITIONAL_ID, STANDALONE, ComponentEntries
from patchc.formats.codecs.additive import decode_additive
from patchc.formats.codecs.conditional.decode.decoder import change_words, decode_conditional
from patchc.formats.codecs.conditional.model.classes import Groups
from patchc.formats.codecs.protocol import Positions, Steps
from patchc.formats.container.additive_metadata import (
    AdditiveValues,
    check_additive,
    parse_additive,
)
from patchc.formats.container.bodies import ReadBodies
from patchc.formats.container.file_changes import FileRecord, join_middle
from patchc.formats.container.index import ChunkRecord, PatchIndex, parse_index
from patchc.formats.container.layout import (
    ADDITIVE,
    FEATURE_NAMES,
    MAJOR,
    PROLOGUE,
    TRAILER,
    TRAILER_ROOT_OFFSET,
    UPDATE,
    decompress,
    parse_prologue,
    parse_trailer,
)
from patchc.formats.container.retention_masks import draw_groups
from patchc.formats.container.tensors import TensorRecord
from patchc.hashing import root_digest, short
from patchc.kernels.ulp_steps.cpu import add_steps
from patchc.sides import Side


class Patch:
    """An open patch file; a context manager that closes it.

    Attributes:
        path: the file.
        size: its size in bytes.
        root: its root digest, which identifies it.
        version: its format version.
        features: names of the features that the file requires.
        chunk_words: words in a full chunk of the grid.
        index: every tensor and changed chunk.
        metadata: provenance, JSON values.
        additive: value type and components of an additive patch; None where values are exact.
        bodies: digests of the bodies that were read.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        if self.size < PROLOGUE.size + TRAILER.size:
            raise PatchFormatError("too short to be a patch file: is it truncated?")
        prologue = self._read(0, PROLOGUE.size)
        chunk_bits = parse_prologue(prologue)
        tail = self._read(self.size - TRAILER.size, TRAILER.size)
        trailer = parse_trailer(tail, self.size)
        stored_index = self._read(trailer.index_offset, trailer.index_stored)
        stored_text = self._read(trailer.metadata_offset, trailer.metadata_stored)
        head = tail[:TRAILER_ROOT_OFFSET]
        if root_digest((prologue, stored_index, stored_text, head)) != trailer.root:
            raise PatchFormatError("the root digest does not match: the file is damaged")
        self.root = trailer.root
        self.version = f"{MAJOR}.{int.from_bytes(prologue[10:12], 'little')}"
        bits = (1 << i for i in range(64) if trailer.features >> i & 1)
        self.features = tuple(FEATURE_NAMES.get(bit, hex(bit)) for bit in bits)
        self.chunk_words = 1 << chunk_bits
        index = decompress(stored_index, trailer.index_size, "index")
        is_update = bool(trailer.features & UPDATE)
        self.index: PatchIndex = parse_index(index, chunk_bits, trailer.index_offset, is_update)
        bodies = len(self.index.lengths) + len(self.index.files)
        self.bodies = ReadBodies(bodies)
        self.metadata = _parse_metadata(decompress(stored_text, trailer.metadata_size, "metadata"))
        self.additive: AdditiveValues | None = None
        if trailer.features & ADDITIVE:
            if is_update:
                raise PatchFormatError("additive values cannot be those of an update")
            self.additive = parse_additive(self.metadata)
            check_additive(self.index)
        elif np.any(self.index.codecs == ADDITIVE_ID):
            raise PatchFormatError("it holds additive chunks and does not say so in its features")

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def decodes_alone(self) -> bool:
        """Whether all bodies decode from the file alone, without the words that they apply to."""
        return bool(np.isin(self.index.codecs, STANDALONE).all())

    def needs_words(self, chunk: ChunkRecord) -> bool:
        """Whether a chunk's body decodes only given the words that it applies to."""
        return chunk.codec == CONDITIONAL_ID

    def words_in_chunk(self, tensor: TensorRecord, number: int) -> int:
        """Words in chunk ``number`` of a tensor; the last chunk may be short."""
        return min(self.chunk_words, tensor.words - number * self.chunk_words)

    def read_changes(
        self,
        tensor: TensorRecord,
        chunk: ChunkRecord,
        words: Words | None = None,
        target: Side = "result",
    ) -> tuple[Positions, Steps]:
        """The changed words of a chunk and their steps, checked against its digest.

        Positions count from the chunk's start, strictly increasing and inside it. Safe to call from
        several threads.

        Args:
            tensor, chunk: rows of the index.
            words: all of the chunk's words on the side across from ``target``; only a body that is
                coded given them needs them.
            target: the side that the changes lead to from ``words``; steps count towards the
                result whichever it is.

        Raises:
            PatchFormatError: the body is damaged, or was not made for ``words``; names tensor and
                chunk.
            UnsupportedPatchError: its codec is not known.
            UsageError: the patch is additive, or the body needs words and there are none.
        """
        with self._naming(_where(tensor, chunk)):
            if self.needs_words(chunk):
                return decode_conditional(*self._conditional(tensor, chunk, words, target))
            return self._read_standalone(tensor, chunk)

    def change_words(
        self,
        tensor: TensorRecord,
        chunk: ChunkRecord,
        words: Words,
        target: Side = "result",
    ) -> None:
        """Take all words of a chunk to side ``target``, in place.

        What :meth:`read_changes` lists is added; errors are the same. After one the words may be
        anything.

        Raises:
            UsageError: also where ``words`` are not as many as the chunk has.
        """
        with self._naming(_where(tensor, chunk)):
            if self.needs_words(chunk):
                change_words(*self._conditional(tensor, chunk, words, target))
            else:
                positions, steps = self._read_standalone(tensor, chunk)
                count = self.words_in_chunk(tensor, chunk.number)
                if len(words) != count:
                    raise UsageError(f"it has {count} words, and {len(words)} are to be changed")
                add_steps(words, positions, steps, tensor.dtype.total_order, target == "base")

    def _conditional(
        self,
        tensor: TensorRecord,
        chunk: ChunkRecord,
        words: Words | None,
        target: Side,
    ) -> tuple[bytes, Words, int, DType, bool, Groups | None]:
        """What codec 3 decodes a chunk from."""
        self._check_exact()
        count = self.words_in_chunk(tensor, chunk.number)
        if words is None or len(words) != count:
            raise UsageError(
                "it is coded given the words that it applies to; pass the chunk's words"
            )
        body = self._read_body(chunk.row, chunk)
        first = chunk.number * self.chunk_words
        groups = draw_groups(self.index.masks, chunk.masks, tensor.name, first, count)
        return body, words, chunk.entries, tensor.dtype, target == "base", groups

    def _read_standalone(self, tensor: TensorRecord, chunk: ChunkRecord) -> tuple[Positions, Steps]:
        self._check_exact()
        codec = CODECS.get(chunk.codec)
        if codec is None:
            raise UnsupportedPatchError(f"codec {chunk.codec} is not known; update patchc")
        body = self._read_body(chunk.row, chunk)
        count = self.words_in_chunk(tensor, chunk.number)
        return codec.decode(body, chunk.entries, count, tensor.dtype.word_bits)

    def _check_exact(self) -> None:
        if self.additive:
            raise UsageError("it holds additive values; read_deltas reads them")

    def read_deltas(self, tensor: TensorRecord, chunk: ChunkRecord) -> list[ComponentEntries]:
        """What each component of an additive patch adds to a chunk; as :meth:`read_changes`.

        Components come in order; one without entries in the chunk is left out.
        """
        if self.additive is None:
            raise UsageError(f"{self.path} holds exact steps; read_changes reads them")
        with self._naming(_where(tensor, chunk)):
            return decode_additive(
                self._read_body(chunk.row, chunk),
                chunk.entries,
                self.words_in_chunk(tensor, chunk.number),
                self.additive.value_type,
                len(self.additive.components),
            )

    def read_file(self, number: int, source: bytes | None, target: Side) -> bytes | None:
        """The content of a changed file on one side, from its content on the other.

        Args:
            number: the file's place in the index's ``files``.
            source: the content on the other side, None where that has no such file.
            target: the side whose content is asked for; None is returned where it has none.

        Raises:
            PatchFormatError: the body is damaged, or the outcome is not the one that the index
                states; names the file.
        """
        file = self.index.files[number]
        if not file.on(target):
            return None
        with self._naming(f"file {file.name!r}"):
            middles = self._read_middles(number)
            content = join_middle(file, middles, source, target)
            if short(blake3(content).digest()) != file.digest_on(target):
                raise PatchFormatError("its content is not the promised one")
        return content

    def _read_middles(self, number: int) -> bytes:
        file = self.index.files[number]
        body = self._read_body(len(self.index.lengths) + number, file)
        return decompress(body, file.base_middle + file.result_middle, "body")

    @contextmanager
    def _naming(self, what: str) -> Iterator[None]:
        try:
            yield
        except PatchcError as error:
            raise type(error)(f"{self.path}: {what}: {error}") from error

    def check_bodies(self) -> None:
        """Compare the digest over all bodies with the bodies as they were read.

        Bodies that were not read before are read now; those of files are expanded, too.

        Raises:
            PatchFormatError: a body is damaged or not the one that the index was made with.
        """
        for tensor in self.index.records:
            for row in tensor.chunks:
                if row not in self.bodies:
                    chunk = self.index.chunk(row)
                    with self._naming(_where(tensor, chunk)):
                        self._read_body(row, chunk)
        for number, file in enumerate(self.index.files):
            if len(self.index.lengths) + number not in self.bodies:
                with self._naming(f"file {file.name!r}"):
                    self._read_middles(number)
        if self.bodies.digest() != self.index.bodies_digest:
            raise PatchFormatError(
                f"{self.path}: the digest over all chunk bodies does not match: a body was "
                "replaced; fetch the patch again"
            )

    def _read_body(self, place: int, record: ChunkRecord | FileRecord) -> bytes:
        body = self._read(record.offset, record.length)
        digest = blake3(body).digest()
        if short(digest) != record.body_digest:
            raise PatchFormatError("its bytes are damaged; fetch the patch again")
        self.bodies.note(place, digest)
        return body

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        while length:
            try:
                part = os.pread(self._descriptor, length, offset)
            except OSError as error:
                raise PatchFormatError(f"cannot read: {error.strerror}") from error
            if not part:
                raise PatchFormatError("ends early: is it truncated?")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)


def open_patch(path: str | os.PathLike[str]) -> Patch:
    """Open a patch file and check its prologue, trailer, index, metadata and root digest.

    Chunk bodies are checked when they are read. Needs no model.

    Raises:
        PatchFormatError: missing, truncated or corrupt; names the file.
        UnsupportedPatchError: a version, feature or dtype that this reader does not have.
    """
    path = Path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise PatchFormatError(f"{path}: cannot open the patch: {error.strerror}") from error
    try:
        return Patch(path, descriptor)
    except PatchcError as error:
        os.close(descriptor)
        raise type(error)(f"{path}: {error}") from error
    except BaseException:
        os.close(descriptor)
        raise


def _where(tensor: TensorRecord, chunk: ChunkRecord) -> str:
    return f"tensor {tensor.name!r}, chunk {chunk.number}"


def _parse_metadata(text: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise PatchFormatError(f"the metadata is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise PatchFormatError("the metadata is not a JSON object")
    return metadata


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
