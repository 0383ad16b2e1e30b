"""Reads a patch file: trailer, index and metadata at once, chunk bodies on demand.

The file may be hostile. Everything is checked before it is used, and nothing is allocated beyond
what the file's size or a tensor's own size justifies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from blake3 import blake3

from patchc.dtypes import Words
from patchc.durability import close
from patchc.errors import PatchcError, PatchFormatError, UnsupportedPatchError, unreadable
from patchc.formats.codecs import CODECS, have_trait
from patchc.formats.codecs.additive_values import NO_VALUES, AdditiveValues, ComponentEntries
from patchc.formats.codecs.protocol import ChunkBody, Codec, Kept, Positions, Steps
from patchc.formats.container import layout
from patchc.formats.container.additive_metadata import check_additive, parse_additive
from patchc.formats.container.bodies import BodyRecord, ReadBodies
from patchc.formats.container.envelope import Envelope
from patchc.formats.container.expansion import decompress
from patchc.formats.container.file_changes import join_middle
from patchc.formats.container.index import ChunkRecord, PatchIndex, parse_index
from patchc.formats.container.metadata import parse_metadata
from patchc.formats.container.retention_masks import draw_groups
from patchc.formats.container.signature_section import parse_section
from patchc.formats.container.statement import Subject, subject_of
from patchc.formats.container.tensors import TensorRecord
from patchc.hashing import root_digest, short
from patchc.hub_models import is_cached
from patchc.other_kinds import ORDER, START_BYTES, other_kind
from patchc.paths import check_named
from patchc.regular_file import open_regular
from patchc.sides import Side
from patchc.system_errors import reason


class Patch:
    """An open patch file; a context manager that closes it.

    Attributes:
        path: the file.
        size: its size in bytes.
        root: its root digest, which identifies it.
        trailer: where its parts lie.
        version: its format version.
        features: names of the features that the file requires.
        chunk_words: words in a full chunk of the grid.
        index: every tensor and changed chunk.
        metadata: provenance, JSON values.
        additive: value type and components of an additive patch; None where values are exact.
        signatures: the envelope of signatures in the file, which is about this patch, and whose
            signatures are not checked; None where it is not signed.
        bodies: digests of the bodies that were read.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        start = self.read(0, min(self.size, START_BYTES))
        if not start.startswith(layout.MAGIC) and (kind := other_kind(start, ORDER)):
            raise PatchFormatError(f"not a patch file: it is {kind}")
        if self.size < layout.PROLOGUE.size + layout.TRAILER.size:
            raise PatchFormatError(f"too short to be a patch file{layout.TRUNCATED}")
        prologue = self.read(0, layout.PROLOGUE.size)
        self.chunk_words = layout.parse_prologue(prologue)
        tail = self.read(self.size - layout.TRAILER.size, layout.TRAILER.size)
        trailer = layout.parse_trailer(tail, self.size)
        stored_index = self.read(trailer.index_offset, trailer.index_stored)
        stored_text = self.read(trailer.metadata_offset, trailer.metadata_stored)
        head = tail[: layout.TRAILER_ROOT_OFFSET]
        if root_digest((prologue, stored_index, stored_text, head)) != trailer.root:
            raise PatchFormatError(
                "the root digest does not match: the file is damaged; fetch it again"
            )
        self.root, self.trailer = trailer.root, trailer
        self.version = f"{layout.MAJOR}.{int.from_bytes(prologue[10:12], 'little')}"
        names = layout.FEATURE_NAMES.items()
        self.features = tuple(name for bit, name in names if trailer.features & bit)
        index = decompress("index", stored_index, trailer.index_size)
        is_update = bool(trailer.features & layout.UPDATE)
        self.index: PatchIndex = parse_index(
            index, self.chunk_words, trailer.index_offset, is_update
        )
        self.bodies = ReadBodies(len(self.index.lengths) + len(self.index.files))
        self.metadata = parse_metadata(decompress("metadata", stored_text, trailer.metadata_size))
        self.additive: AdditiveValues | None = None
        if trailer.features & layout.ADDITIVE:
            if is_update:
                raise PatchFormatError("additive values cannot be those of an update")
            self.additive = parse_additive(self.metadata)
            check_additive(self.index)
        elif np.any(have_trait(self.index.codecs, "is_additive")):
            raise PatchFormatError("it holds additive chunks and does not say so in its features")
        self.signatures: Envelope | None = None
        if trailer.signature_size:
            section = self.read(trailer.signature_offset, trailer.signature_size)
            self.signatures = parse_section(section, self.subject)

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *_: object) -> None:
        close(self._descriptor)

    @cached_property
    def subject(self) -> Subject:
        """What a signed statement about this patch has to say of it."""
        result = None if self.additive else self.index.result_digest
        base, words = self.index.base_digest, self.chunk_words
        return subject_of(self.root, base, result, words, self.metadata)

    def decodes_alone(self) -> bool:
        """Whether all bodies decode from the file alone, without the words that they apply to."""
        return bool(have_trait(self.index.codecs, "needs_words", False).all())

    def needs_words(self, chunk: ChunkRecord) -> bool:
        """Whether a chunk's body decodes only given the words that it applies to."""
        return chunk.codec in CODECS and CODECS[chunk.codec].needs_words

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
        """Read the changed words of a chunk and their steps; the body is checked by its digest.

        Positions count from the chunk's start, strictly increasing and inside it. Safe to call from
        several threads.

        Args:
            tensor, chunk: records of the index.
            words: all of the chunk's words on the side across from ``target``; None is enough where
                :meth:`needs_words` is false.
            target: the side that the changes lead to from ``words``. Steps always count towards the
                result.

        Raises:
            PatchFormatError: the body is damaged, or was not made for ``words``; names tensor and
                chunk.
            UnsupportedPatchError: its codec is not known.
            UsageError: the patch is additive, or the body needs words and there are none.
        """
        with self._coded(tensor, chunk) as (codec, body):
            return codec.decode(body, words, target)

    def change_words(
        self,
        tensor: TensorRecord,
        chunk: ChunkRecord,
        words: Words,
        target: Side = "result",
        kept: Kept | None = None,
    ) -> None:
        """Take all words of a chunk to side ``target``, in place; see :meth:`read_changes`.

        After an error the words are garbage. ``kept`` is as for :meth:`Codec.change_words`.

        Raises:
            UsageError: also where ``words`` are not as many as the chunk has.
        """
        with self._coded(tensor, chunk) as (codec, body):
            codec.change_words(body, words, target, kept)

    def read_deltas(self, tensor: TensorRecord, chunk: ChunkRecord) -> list[ComponentEntries]:
        """Read what each component of an additive patch adds to a chunk; see :meth:`read_changes`.

        Components come in order, without those that have no entries in the chunk.
        """
        with self._coded(tensor, chunk) as (codec, body):
            return codec.decode_components(body)

    @contextmanager
    def _coded(self, tensor: TensorRecord, chunk: ChunkRecord) -> Iterator[tuple[Codec, ChunkBody]]:
        """A chunk's codec and body; errors that they raise name the chunk."""
        with self._naming(_where(tensor, chunk)):
            codec = CODECS.get(chunk.codec)
            if codec is None:
                raise UnsupportedPatchError(f"codec {chunk.codec} is not known; update patchc")
            data = self._read_body(chunk.place, chunk)
            first = chunk.number * self.chunk_words
            words = self.words_in_chunk(tensor, chunk.number)
            groups = draw_groups(self.index.masks, chunk.masks, tensor.name, first, words)
            values = self.additive or NO_VALUES
            yield codec, ChunkBody(data, chunk.entries, words, tensor.dtype, groups, values)

    def read_file(self, number: int, source: bytes | None, target: Side) -> bytes | None:
        """Make the content of a changed file on one side from its content on the other.

        Args:
            number: the file's place in the index's ``files``.
            source: the content on the other side, None where that has no such file.
            target: the side to make; the outcome is None where it has no such file.

        Raises:
            PatchFormatError: the body is damaged, or the content does not have the digest that the
                index states; names the file.
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

    def read_middles(self, number: int) -> bytes:
        """Read what a changed file stores: the base's part that differs, then the result's.

        Raises:
            PatchFormatError: the body is damaged; names the file.
        """
        with self._naming(f"file {self.index.files[number].name!r}"):
            return self._read_middles(number)

    def _read_middles(self, number: int) -> bytes:
        file = self.index.files[number]
        body = self._read_body(len(self.index.lengths) + number, file)
        return decompress("body", body, file.base_middle + file.result_middle)

    @contextmanager
    def _naming(self, what: str) -> Iterator[None]:
        try:
            yield
        except PatchcError as error:
            raise type(error)(f"{self.path}: {what}: {error}") from error

    def check_bodies(self) -> None:
        """Check the digest over all bodies, and first read those that were not read before.

        Bodies of files are expanded, too.

        Raises:
            PatchFormatError: a body is damaged or not the one that the index was made with.
        """
        for tensor in self.index.records:
            for place in tensor.chunks:
                if place not in self.bodies:
                    chunk = self.index.chunk(place)
                    with self._naming(_where(tensor, chunk)):
                        self._read_body(place, chunk)
        for number, file in enumerate(self.index.files):
            if len(self.index.lengths) + number not in self.bodies:
                with self._naming(f"file {file.name!r}"):
                    self._read_middles(number)
        if self.bodies.digest() != self.index.bodies_digest:
            raise PatchFormatError(
                f"{self.path}: the digest over all chunk bodies does not match: a body was "
                "replaced; fetch the patch again"
            )

    def _read_body(self, place: int, record: BodyRecord) -> bytes:
        body = self.read(record.offset, record.length)
        digest = blake3(body).digest()
        if short(digest) != record.body_digest:
            raise PatchFormatError("its bytes are damaged; fetch the patch again")
        self.bodies.note(place, digest)
        return body

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes of the file, which are not checked.

        Raises:
            PatchFormatError: the file became unreadable or shorter.
        """
        pieces = []
        while length:
            try:
                piece = os.pread(self._descriptor, length, offset)
            except OSError as error:
                raise PatchFormatError(f"cannot read: {reason(error)}") from error
            if not piece:
                raise PatchFormatError(f"ends early{layout.TRUNCATED}")
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)


def open_patch(path: str | os.PathLike[str]) -> Patch:
    """Open a patch file and check its prologue, trailer, index, metadata and root digest.

    Chunk bodies are checked when they are read. Needs no model.

    Args:
        path: the file.

    Raises:
        PatchFormatError: missing, truncated or corrupt; names the file.
        UnsupportedPatchError: a version, feature or dtype that this reader does not have.
        UsageError: the path is empty.
    """
    check_named(path, "patch")
    path = Path(path)
    try:
        descriptor = open_regular(path)
    except OSError as error:
        is_model = os.path.isdir(path)  # noqa: PTH112 (it never raises)
        is_model |= isinstance(error, FileNotFoundError) and is_cached(str(path))
        order = f"; {ORDER}" if is_model else ""
        message = f"{path}: cannot open the patch: {reason(error)}{order}"
        raise unreadable(PatchFormatError, message, error) from error
    try:
        return Patch(path, descriptor)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, PatchcError):
            raise type(error)(f"{path}: {error}") from error
        raise


def _where(tensor: TensorRecord, chunk: ChunkRecord) -> str:
    return f"tensor {tensor.name!r}, chunk {chunk.number}"
