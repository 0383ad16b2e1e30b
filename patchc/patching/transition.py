"""What a patch does to one chunk of a model: find its side, take it across, check the outcome.

A patch holds the digests of every chunk that it changes, one for each side. Only this module
compares them with the digests of a model's chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import PatchcError, ResultMismatchError, WrongBaseError
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.formats.codecs.protocol import Positions, Steps
from patchc.hashing import chunk_digest, short
from patchc.kernels.ulp_steps.cpu import add_steps
from patchc.patching.chunk_images import ChunkImage
from patchc.patching.tensor_sides import words_on
from patchc.sides import OTHER, Side

ChangeListener = Callable[[TensorRecord, ChunkRecord, Positions, Steps], None]


class OtherSideError(PatchcError):
    """A chunk is on the target side already; the caller finds out about the other chunks."""


class UnknownChunkError(WrongBaseError):
    """A chunk that the patch changes is on neither side: foreign, or torn by a run in place."""


@dataclass(frozen=True)
class ChunkDigests:
    """Full digests of one chunk in the base and in the result.

    ``found_on`` is the side where the model has it; None for a chunk that the patch does not
    change.
    """

    base: bytes
    result: bytes
    found_on: Side | None

    @classmethod
    def across(cls, side: Side, found: bytes, reached: bytes) -> ChunkDigests:
        """The digests of a chunk that was found on ``side`` and taken to the other one."""
        base, result = (found, reached) if side == "base" else (reached, found)
        return cls(base, result, side)

    def on(self, side: Side) -> bytes:
        """The digest on one side."""
        return self.base if side == "base" else self.result


@dataclass(frozen=True)
class Transition:
    """Takes the chunks of a model from one side of a patch to the other, in memory.

    Safe to use from several threads.

    Attributes:
        patch: exact steps. The chunks of an additive patch can only be recognised.
        model: how messages name the model.
        listener: gets the positions and steps of every chunk that is taken across.
    """

    patch: Patch
    model: object
    listener: ChangeListener | None = None

    def side_of(self, change: ChunkRecord, digest: bytes, first: Side = "base") -> Side | None:
        """The side that a chunk of this full digest is on; None if neither, ``first`` if both."""
        for side in (first, OTHER[first]):
            if short(digest) == change.digest_on(side):
                return side
        return None

    def find_side(
        self, tensor: TensorRecord, change: ChunkRecord, digest: bytes, first: Side = "base"
    ) -> Side:
        """Find the side of a chunk that must be on one; otherwise as :meth:`side_of`.

        Raises:
            UnknownChunkError: the chunk is on neither side.
        """
        side = self.side_of(change, digest, first)
        if side is None:
            raise self.unknown(tensor, change)
        return side

    def take(self, tensor: TensorRecord, chunk: Chunk, words: Words, target: Side) -> ChunkDigests:
        """Take a chunk from the other side to ``target``, in place, and check it on both.

        Where the tensor changes its size, ``words`` has room for the larger side.

        Raises:
            OtherSideError: the chunk is on ``target`` already.
            WrongBaseError: the chunk is on neither side.
            ResultMismatchError: the outcome is not the promised one.
            PatchFormatError: the chunk's body is damaged.
        """
        source = OTHER[target]
        here, there = words_on(tensor, chunk, source), words_on(tensor, chunk, target)
        found = chunk_digest(words[:here])
        change = self.patch.index.find(tensor, chunk.number)
        if change is None:
            reached = found if here == there else chunk_digest(words[:there])
        elif self.find_side(tensor, change, found, source) == source:
            reached = self.cross(tensor, change, words, target, there)
        else:
            raise OtherSideError(tensor.name)
        digests = ChunkDigests.across(source, found, reached)
        return digests if change else replace(digests, found_on=None)

    def flip(
        self, tensor: TensorRecord, chunk: Chunk, words: Words, image: ChunkImage | None = None
    ) -> ChunkDigests:
        """Take a chunk to the side that it is not on, in place; otherwise as :meth:`take`.

        ``image`` is as for :meth:`cross`.
        """
        found = chunk_digest(words)
        change = self.patch.index.find(tensor, chunk.number)
        if change is None:
            return ChunkDigests(found, found, None)
        side = self.find_side(tensor, change, found)
        reached = self.cross(tensor, change, words, OTHER[side], image=image)
        return ChunkDigests.across(side, found, reached)

    def settle(
        self, tensor: TensorRecord, chunk: Chunk, words: Words, target: Side
    ) -> ChunkDigests:
        """Take a chunk to ``target``, in place, unless it is there; both sides have its tensor.

        The body of a chunk on the target is not decoded. So a run that stopped at a body that does
        not decode can be taken back.

        Returns:
            The digest on ``target``, for both sides.

        Raises:
            WrongBaseError, ResultMismatchError, PatchFormatError: as :meth:`take`.
        """
        digest = chunk_digest(words)
        change = self.patch.index.find(tensor, chunk.number)
        if change and self.find_side(tensor, change, digest, target) != target:
            digest = self.cross(tensor, change, words, target)
        return ChunkDigests(digest, digest, None)

    def revert_found(
        self, tensor: TensorRecord, chunk: Chunk, words: Words, side: Side
    ) -> ChunkDigests:
        """Find the side of a chunk, and take one on the result back to the base, in place.

        So the whole base can be identified, whatever was found: the digests of its tensors check
        what comes out. A chunk of a tensor that only the result has stays as it is.

        Args:
            tensor, chunk, words: as the model has them.
            side: the side whose shape the model's tensor has.

        Returns:
            The digest on the base, and the one that was found as that of the result.

        Raises:
            WrongBaseError: the chunk is on neither side.
            PatchFormatError: the chunk's body is damaged.
        """
        here, before = words_on(tensor, chunk, side), words_on(tensor, chunk, "base")
        found = chunk_digest(words[:here])
        change = self.patch.index.find(tensor, chunk.number)
        if change is None:
            base = found if here == before else chunk_digest(words[:before])
            return ChunkDigests(base, found, None)
        on = self.side_of(change, found, "base" if here == before else "result")
        if on is None or (on == "base" and here != before):
            raise self.unknown(tensor, change)
        if on == "base":
            if self.patch.needs_words(change):
                self.patch.change_words(tensor, change, words)  # shows that the body decodes
            return ChunkDigests(found, found, "base")
        if tensor.only:
            return ChunkDigests(found, found, "result")
        self.patch.change_words(tensor, change, words, "base")
        return ChunkDigests(chunk_digest(words[:before]), found, "result")

    def cross(
        self,
        tensor: TensorRecord,
        change: ChunkRecord,
        words: Words,
        target: Side,
        count: int | None = None,
        image: ChunkImage | None = None,
    ) -> bytes:
        """Take a chunk that is on the other side to ``target``, in place.

        Without a listener, ``image`` gets what changes, as it was.

        Returns:
            The full digest of the first ``count`` words (all by default), which was checked.

        Raises:
            ResultMismatchError: the outcome is not the promised one.
            PatchFormatError: the chunk's body is damaged.
        """
        if self.listener:
            positions, steps = self.patch.read_changes(tensor, change, words, target)
            add_steps(words, positions, steps, tensor.dtype.total_order, target == "base")
            self.listener(tensor, change, positions, steps)
        else:
            kept = (image.positions, image.words) if image else None
            self.patch.change_words(tensor, change, words, target, kept)
        reached = chunk_digest(words[:count])
        if self.side_of(change, reached, target) != target:
            raise ResultMismatchError(
                f"{self.patch.path}: tensor {tensor.name!r}, chunk {change.number}: the outcome "
                "is not the promised one; the patch is not sound, fetch or build it again"
            )
        return reached

    def knows(
        self,
        tensor: TensorRecord,
        digests: Mapping[Side, bytes],
        chunks: Sequence[ChunkDigests],
    ) -> bool:
        """Whether a tensor is the base's, or the result's where only the result has it.

        The index holds a digest of the tensor, unless every chunk changes. Then the chunks decide.
        ``digests`` and ``chunks`` are full digests of the tensor, and of its chunks in order.
        """
        side: Side = "result" if tensor.only == "result" else "base"
        if tensor.digest is not None:
            return short(digests[side]) == tensor.digest
        changes = map(self.patch.index.chunk, tensor.chunks)
        return all(
            short(found.on(side)) == change.digest_on(side)
            for found, change in zip(chunks, changes, strict=True)
        )

    def unknown(self, tensor: TensorRecord, change: ChunkRecord) -> UnknownChunkError:
        """The error for a chunk on neither side."""
        wrong = self.wrong(tensor.name, f"its chunk {change.number} differs")
        return UnknownChunkError(str(wrong))

    def wrong(
        self,
        tensor: str,
        difference: str,
        remedy: str = "name that model, in the same revision and dtype",
    ) -> WrongBaseError:
        """The error for a model that is not the expected one."""
        return WrongBaseError(
            f"{self.model} is not the model that {self.patch.path} was made for: tensor "
            f"{tensor!r}: {difference}; {remedy}"
        )


def unsound(patch: Patch) -> ResultMismatchError:
    """The error for a patch whose digests of chunks match but not that of the model."""
    return ResultMismatchError(
        f"{patch.path}: every chunk matches and the model's digest does not; the patch is not "
        "sound, fetch or build it again"
    )
