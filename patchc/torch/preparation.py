"""Checks a live model against a patch, decodes the changes and uploads them; does not write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.errors import (
    PartlyPatchedError,
    UnsupportedInputError,
)
from patchc.formats import ChunkRecord, Patch, TensorRecord, open_patch
from patchc.formats.codecs.protocol import Positions, Steps
from patchc.kernels.ulp_steps import StepRun
from patchc.patching.digest_pass import Model, ModelDigests, TensorDigests, pass_over_tensors
from patchc.patching.model_of_patch import open_for_patch
from patchc.patching.states import match_tensors
from patchc.patching.tensor_sides import read_side
from patchc.patching.transition import ChunkDigests, Transition, unsound
from patchc.paths import PathLike
from patchc.progress import Progress
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side
from patchc.signing.trust import Trust, demand_trust
from patchc.torch.live_model import LiveModel
from patchc.torch.memory_layout import Run

Changes = dict[int, tuple[NDArray[np.int32], NDArray[np.signedinteger]]]
Piece = tuple[Run, int, int]

_STEP_TYPES = (np.int8, np.int16, np.int32, np.int64)


def refuse_features(patch: Patch) -> None:
    """Refuse a patch that does more than change the values of tensors.

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


@contextmanager
def opened_with_base(
    patch: PathLike, base: PathLike, threads: int | None, trust: Trust, progress: Progress
) -> Iterator[tuple[Patch, Checkpoint, Runtime]]:
    """Open a trusted patch of exact steps, and its base or result on disk, to be read by threads.

    Raises:
        WrongBaseError, UnsupportedInputError, SignatureError: and others, as
            :func:`patchc.torch.patched_tensors`.
    """
    with (
        open_patch(patch) as opened,
        open_for_patch(base, opened) as model,
        Runtime(threads, progress=progress) as runtime,
    ):
        demand_trust(opened, trust)
        refuse_features(opened)
        match_tensors(opened, model)
        yield opened, model, runtime


@dataclass(eq=False)
class Preparation:
    """One pass over the words of the base, or of the live model if there is no ``base``.

    Attributes:
        patch: of exact steps.
        live: the model to change.
        base: the patch's base or result on disk; None to read the live words instead.
        verify: with ``base``, whether to read the live words too.
        shard: whether the model may lack tensors or rows of the base.
    """

    patch: Patch
    live: LiveModel
    base: Checkpoint | None
    verify: bool
    shard: bool
    _seen: set[Side] = field(default_factory=set)
    _changes: dict[Run, Changes] = field(default_factory=dict)

    @property
    def side(self) -> Side | None:
        """The side that the live model is on; None before :meth:`run`, or if nothing told it."""
        return next(iter(self._seen), None)

    def run(self, runtime: Runtime) -> dict[Run, StepRun]:
        """The steps of every run that changes, on its device.

        Raises:
            WrongBaseError: the model, or the base on disk, is on neither side; names the tensor.
            PartlyPatchedError: some chunks are on one side and some on the other.
            ResultMismatchError: the outcome would not be the promised one.
            PatchFormatError: a body is damaged.
        """
        patch, runs = self.patch, self.live.layout.runs
        if self.base:
            match_tensors(patch, self.base)
        records = [record for record in patch.index.records if runs[record.name] or not self.shard]
        work = partial(self._from_disk, self.base, runtime) if self.base else self._from_live
        passed: list[TensorDigests] = []
        prepared: dict[Run, StepRun] = {}
        model = self.base or self.live
        with closing(pass_over_tensors(patch, model, records, work, "prepare", runtime)) as tensors:
            for tensor in tensors:
                passed.append(tensor)
                prepared |= self._upload(tensor.record)
        if len(self._seen) > 1:
            raise PartlyPatchedError(
                f"{self.live.path} is partly patched: some chunks hold {patch.path} and others do "
                "not; load it again"
            )
        patch.check_bodies()
        if not self.shard and not ModelDigests.of(passed).is_promised_by(patch):
            raise unsound(patch)
        return prepared

    def _from_live(self, record: TensorRecord, chunk: Chunk) -> ChunkDigests:
        """Take a copy of a chunk of the live model to the other side."""
        words = self.live.read_chunk(record, chunk)
        digests = self._transition(self.live).flip(record, chunk, words)
        if digests.found_on:
            self._seen.add(digests.found_on)
        return digests

    def _from_disk(
        self, base: Checkpoint, runtime: Runtime, record: TensorRecord, chunk: Chunk
    ) -> ChunkDigests:
        """Take a chunk from disk to the other side, and compare the live words with both sides."""
        words = read_side(base, record, chunk, "base", runtime.buffers.words)
        pieces = list(self.live.layout.pieces(record.name, chunk)) if self.verify else []
        unlike = neither = self._unlike(record, chunk, pieces, words)
        digests = self._transition(base).flip(record, chunk, words)
        if digests.found_on:
            neither = self._unlike(record, chunk, unlike, words)
            self._seen |= {digests.found_on} if len(unlike) < len(pieces) else set()
            self._seen |= {OTHER[digests.found_on]} if unlike else set()
        if neither:
            parameter = neither[0][0].parameter
            raise self._transition(self.live).wrong(
                record.name,
                f"chunk {chunk.number} of parameter {parameter!r} is not that of {base.path}",
            )
        return digests

    def _transition(self, model: Model) -> Transition:
        return Transition(self.patch, model.path, self._note)

    def _unlike(
        self, record: TensorRecord, chunk: Chunk, pieces: list[Piece], words: Words
    ) -> list[Piece]:
        """The pieces that differ from these words of a chunk."""
        return [
            (run, low, high)
            for run, low, high in pieces
            if not self.live.holds(record, run, low, words[low - chunk.first : high - chunk.first])
        ]

    def _note(
        self, record: TensorRecord, change: ChunkRecord, positions: Positions, steps: Steps
    ) -> None:
        """Remember what changes in each run."""
        first = change.number * self.patch.chunk_words
        chunk = Chunk(change.number, first, self.patch.words_in_chunk(record, change.number))
        for run, low, high in self.live.layout.pieces(record.name, chunk):
            if run.writes:
                changes = self._changes.setdefault(run, {})
                changes[change.number] = _cut(positions, steps, chunk, run, low, high)

    def _upload(self, record: TensorRecord) -> dict[Run, StepRun]:
        uploaded = {}
        for run in self.live.layout.runs[record.name]:
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


def _cut(
    positions: Positions, steps: Steps, chunk: Chunk, run: Run, low: int, high: int
) -> tuple[NDArray[np.int32], NDArray[np.signedinteger]]:
    """The changes in words ``low`` … ``high − 1`` of a tensor, counted from the start of a run."""
    first, stop = np.searchsorted(positions, (low - chunk.first, high - chunk.first))
    places = positions[first:stop].astype(np.int64) + (chunk.first - run.first)
    own = steps[first:stop]
    least, most = (own.min(), own.max()) if len(own) else (0, 0)
    smallest = next(
        kind for kind in _STEP_TYPES if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max
    )
    return places.astype(np.int32), own.astype(smallest)
