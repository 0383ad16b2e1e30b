"""Checks a live model against a patch, decodes the changes and uploads them; writes nothing."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import (
    AlreadyPatchedError,
    NotPatchedError,
    PartlyPatchedError,
    PatchcError,
    UnsupportedInputError,
)
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.formats.codecs.protocol import Positions, Steps
from patchc.hashing import chunk_digest, short
from patchc.kernels.ulp_steps.cpu import add_steps
from patchc.kernels.ulp_steps.scatter import StepRun
from patchc.patching.model_walk import (
    ChunkDigests,
    Job,
    WalkedTensor,
    check_reached,
    model_digests,
    unsound,
    walk_tensors,
    wrong,
)
from patchc.patching.states import match_tensors
from patchc.patching.tensor_sides import read_side
from patchc.progress import Progress
from patchc.runtime.workers import Workers
from patchc.sides import OTHER, Side
from patchc.torch.layout import Run
from patchc.torch.live_model import LiveModel

Changes = dict[int, tuple[NDArray[np.int32], NDArray[np.signedinteger]]]
Piece = tuple[Run, int, int]

_STEP_TYPES = (np.int8, np.int16, np.int32, np.int64)


def refuse_features(patch: Patch) -> None:
    """Refuse a patch that does not simply change words of tensors that stay.

    Raises:
        UnsupportedInputError: naming the feature, and what to do.
    """
    if patch.additive:
        raise UnsupportedInputError(
            f"{patch.path} holds additive values, which promise no result; apply it to the "
            "checkpoint and load that, or diff the two for a patch of exact steps"
        )
    if patch.features:
        raise UnsupportedInputError(
            f"{patch.path} has the feature {' and '.join(patch.features)}: it changes more than "
            "the values of tensors; apply it to the checkpoint and load that, or make it with "
            "diff --weights-only"
        )


class Preparation:
    """One pass over the words of the base, or of the live model where there is no ``base``.

    Args:
        patch: of exact steps.
        live: the model to change.
        base: the patch's base or result on disk; None to read the live words for it.
        trust: with ``base``, take the live words to be those of ``source`` without reading them.
        source: the side that the live model should be on.
        shard: whether it holds a part of the base only.
    """

    def __init__(
        self,
        patch: Patch,
        live: LiveModel,
        base: Checkpoint | None,
        trust: bool,
        source: Side,
        shard: bool,
    ) -> None:
        self._patch = patch
        self._live = live
        self._base = base
        self._trust = trust
        self._source: Side = source
        self._shard = shard
        self._seen: set[Side] = set()
        self._changes: dict[Run, Changes] = {}

    def run(self, workers: Workers, progress: Progress) -> dict[Run, StepRun]:
        """The steps of every run that changes, on its device.

        Raises:
            WrongBaseError: the model, or the base on disk, is on neither side; names the tensor.
            AlreadyPatchedError, NotPatchedError: the model is on the other side.
            PartlyPatchedError: some chunks are on one side and some on the other.
            ResultMismatchError: the outcome would not be the promised one.
            PatchFormatError: a body is damaged.
        """
        patch, runs = self._patch, self._live.layout.runs
        if self._base:
            match_tensors(patch, self._base)
        records = [record for record in patch.index.records if runs[record.name] or not self._shard]
        run = partial(self._from_disk, self._base) if self._base else self._from_live
        walked: list[WalkedTensor] = []
        prepared: dict[Run, StepRun] = {}
        model = self._base or self._live
        with closing(
            walk_tensors(patch, model, records, run, "prepare", workers, progress)
        ) as tensors:
            for tensor in tensors:
                walked.append(tensor)
                prepared |= self._upload(tensor.record)
        if self._seen - {self._source}:
            raise self._other_state()
        patch.check_bodies()
        found = model_digests(walked)
        promised = patch.index.base_digest, patch.index.result_digest
        if not self._shard and (found.base, found.result) != promised:
            raise unsound(patch)
        return prepared

    def _from_live(self, job: Job) -> ChunkDigests:
        """Digest a chunk of the live model, and take a copy of it to the other side."""
        words = self._live.read_chunk(job.record, job.chunk)
        row = self._patch.index.find(job.record, job.chunk.number)
        found = chunk_digest(words)
        if row is None:
            return ChunkDigests(found, found, None)
        side = _side(row, found)
        if side is None:
            raise wrong(self._patch, self._live, job.record.name, f"its chunk {row.number} differs")
        self._seen.add(side)
        return _on_sides(side, found, self._take_across(job, row, words, side))

    def _from_disk(self, base: Checkpoint, job: Job) -> ChunkDigests:
        """The same with words from disk; the live words are compared with both sides."""
        record, chunk = job.record, job.chunk
        words = read_side(base, record, chunk, "base", "words")
        pieces = [] if self._trust else list(self._live.layout.pieces(record.name, chunk))
        unlike = self._unlike(record, chunk, pieces, words)
        row = self._patch.index.find(record, chunk.number)
        found = chunk_digest(words)
        if row is None:
            if unlike:
                raise self._wrong_piece(record, chunk, unlike[0])
            return ChunkDigests(found, found, None)
        side = _side(row, found)
        if side is None:
            raise wrong(self._patch, base, record.name, f"its chunk {row.number} differs")
        reached = self._take_across(job, row, words, side)
        neither = self._unlike(record, chunk, unlike, words)
        if neither:
            raise self._wrong_piece(record, chunk, neither[0])
        if len(unlike) < len(pieces):
            self._seen.add(side)
        if unlike:
            self._seen.add(OTHER[side])
        return _on_sides(side, found, reached)

    def _unlike(
        self, record: TensorRecord, chunk: Chunk, pieces: list[Piece], words: Words
    ) -> list[Piece]:
        """The pieces that hold other words than these of a chunk."""
        return [
            (run, low, high)
            for run, low, high in pieces
            if not self._live.holds(record, run, low, words[low - chunk.first : high - chunk.first])
        ]

    def _wrong_piece(self, record: TensorRecord, chunk: Chunk, piece: Piece) -> PatchcError:
        difference = (
            f"chunk {chunk.number} of parameter {piece[0].parameter!r} is not that of "
            f"{self._base.path if self._base else 'the base'}"
        )
        return wrong(self._patch, self._live, record.name, difference)

    def _take_across(self, job: Job, row: ChunkRecord, words: Words, side: Side) -> bytes:
        """Take a copy of a chunk to the other side, and keep what changes in each run."""
        target = OTHER[side]
        positions, steps = self._patch.read_changes(job.record, row, words, target)
        add_steps(words, positions, steps, job.record.dtype.total_order, target == "base")
        for run, low, high in self._live.layout.pieces(job.record.name, job.chunk):
            if run.writes:
                changes = self._changes.setdefault(run, {})
                changes[row.number] = _cut(positions, steps, job.chunk, run, low, high)
        return check_reached(self._patch, job.record, row, words, target)

    def _upload(self, record: TensorRecord) -> dict[Run, StepRun]:
        uploaded = {}
        for run in self._live.layout.runs[record.name]:
            changes = self._changes.pop(run, {})
            if changes:
                positions, steps = zip(
                    *(changes[number] for number in sorted(changes)), strict=True
                )
                uploaded[run] = StepRun(
                    run.words,
                    torch.from_numpy(np.concatenate(positions)).to(run.words.device),
                    torch.from_numpy(np.concatenate(steps)).to(run.words.device),
                    record.dtype.total_order,
                )
        return uploaded

    def _other_state(self) -> PatchcError:
        path, live = self._patch.path, self._live.path
        if len(self._seen) > 1:
            return PartlyPatchedError(
                f"{live} is partly patched: some chunks hold {path} and others do not; load it "
                "again"
            )
        if self._source == "result":
            return NotPatchedError(f"{live} does not hold {path}; there is nothing to revert")
        return AlreadyPatchedError(f"{live} already holds {path}; there is nothing to apply")


def _side(row: ChunkRecord, found: bytes) -> Side | None:
    if short(found) == row.base_digest:
        return "base"
    return "result" if short(found) == row.result_digest else None


def _on_sides(side: Side, found: bytes, reached: bytes) -> ChunkDigests:
    base, result = (found, reached) if side == "base" else (reached, found)
    return ChunkDigests(base, result, side)


def _cut(
    positions: Positions, steps: Steps, chunk: Chunk, run: Run, low: int, high: int
) -> tuple[NDArray[np.int32], NDArray[np.signedinteger]]:
    """The changes from word ``low`` of the tensor to ``high``, counted from a run's start."""
    first, stop = np.searchsorted(positions, (low - chunk.first, high - chunk.first))
    places = positions[first:stop].astype(np.int64) + (chunk.first - run.first)
    own = steps[first:stop]
    least, most = (own.min(), own.max()) if len(own) else (0, 0)
    smallest = next(
        kind for kind in _STEP_TYPES if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max
    )
    return places.astype(np.int32), own.astype(smallest)
