"""Finds chunks that were cut off while they were written, and what brings them back.

A torn chunk has bytes of both sides of its patch and no others. Whole words for it come from the
journal of the interrupted run, or from another copy of the model. A chunk with any other byte is
foreign, and nothing is written over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import WrongBaseError
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.hashing import chunk_digest
from patchc.patching.transition import Transition
from patchc.sides import OTHER

MAY_BE_TORN = (
    "If an earlier run in place was cut off, the chunk may be torn: run again with --repair-from "
    "and an intact copy of the base or of the result, which restores what is torn and nothing else"
)
_NOT_INTACT = (
    "The copy to repair from differs there too; give an intact copy of the base or of the result"
)


class Images(Protocol):
    """What brings chunks back, to either side of a patch."""

    def read_image(self, tensor: str, chunk: int, words: Words) -> bool:
        """Bring back a chunk in ``words``, as it is in the model; False where nothing is known."""


class CopiedChunks:
    """The chunks of another copy of the model."""

    def __init__(self, copy: Checkpoint, patch: Patch) -> None:
        self._copy = copy
        self._patch = patch

    def read_image(self, tensor: str, chunk: int, words: Words) -> bool:
        """Put a chunk of the copy into ``words``; False where the copy's tensor is another one.

        Raises:
            CheckpointError: a file of the copy cannot be read.
        """
        record, own = self._patch.index.tensors[tensor], self._copy.tensors.get(tensor)
        if own is None or (own.dtype, own.shape) != (record.dtype, record.shape):
            return False
        self._copy.read_words(own, chunk * self._patch.chunk_words, words)
        return True


class TornChunks:
    """The torn chunks of a model, each with what brings it back.

    Attributes:
        places: (tensor name, chunk number) → the images that have the chunk.
    """

    def __init__(self, patch: Patch, model: Checkpoint) -> None:
        self.places: dict[tuple[str, int], Images] = {}
        self._patch = patch
        self._model = model
        self._transition = Transition(patch, model.path)

    def find(self, digests: Mapping[str, list[bytes]], sources: Sequence[Images]) -> None:
        """Find all torn chunks, and put the digests of their whole words into ``digests``.

        Args:
            digests: tensor name → full digests of the model's chunks.
            sources: where to look, in this order.

        Raises:
            WrongBaseError: a chunk that the patch changes is on neither side, and it is foreign or
                no source has it.
        """
        for record in map(self._patch.index.tensors.__getitem__, self._model.tensors):
            for change in map(self._patch.index.chunk, record.chunks):
                found = digests[record.name][change.number]
                if self._transition.side_of(change, found) is None:
                    digest = self._restorable(record, change, sources)
                    digests[record.name][change.number] = digest

    def read(self, tensor: TensorRecord, chunk: Chunk, words: Words) -> Words:
        """Read the whole words of a chunk, from the model or from what brings it back."""
        self._model.read_words(self._model.tensors[tensor.name], chunk.first, words)
        images = self.places.get((tensor.name, chunk.number))
        if images:
            images.read_image(tensor.name, chunk.number, words)
        return words

    def _restorable(
        self, tensor: TensorRecord, change: ChunkRecord, sources: Sequence[Images]
    ) -> bytes:
        count = self._patch.words_in_chunk(tensor, change.number)
        first = change.number * self._patch.chunk_words
        found: Words = np.empty(count, tensor.dtype.word)
        self._model.read_words(self._model.tensors[tensor.name], first, found)
        how = MAY_BE_TORN
        for images in sources:
            whole = found.copy()
            if not images.read_image(tensor.name, change.number, whole):
                continue
            digest = chunk_digest(whole)
            side = self._transition.side_of(change, digest)
            if side is None:
                how = _NOT_INTACT if isinstance(images, CopiedChunks) else how
                continue
            other = whole.copy()
            self._transition.cross(tensor, change, other, OTHER[side])
            if not _is_mixed(found, whole, other):
                raise self._transition.wrong(
                    tensor.name,
                    f"its chunk {change.number} differs, and has bytes that neither side has, so "
                    "it is not torn but foreign",
                )
            self.places[tensor.name, change.number] = images
            return digest
        raise WrongBaseError(f"{self._transition.unknown(tensor, change)}. {how}")


def _is_mixed(found: Words, one: Words, other: Words) -> bool:
    """Whether each byte is one of two."""
    bytes_of = [words.view(np.uint8) for words in (found, one, other)]
    return bool(((bytes_of[0] == bytes_of[1]) | (bytes_of[0] == bytes_of[2])).all())
