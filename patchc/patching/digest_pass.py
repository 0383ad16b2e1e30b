"""One pass over all chunks of a model, from which the digests of both sides follow."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from patchc.chunks import Chunk, grid
from patchc.formats import Patch, TensorRecord
from patchc.hashing import model_digest, tensor_digest
from patchc.patching.tensor_sides import words_on
from patchc.patching.transition import ChunkDigests, Transition
from patchc.runtime.ranks import deal
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side

ChunkWork = Callable[[TensorRecord, Chunk], ChunkDigests]
"""Reads a chunk, works on it and returns its digests; runs in worker threads."""


class Model(Protocol):
    """A model: its name in messages, and its tensors by name."""

    @property
    def path(self) -> object: ...  # noqa: D102

    @property
    def tensors(self) -> Mapping[str, object]: ...  # noqa: D102


@dataclass(frozen=True)
class TensorDigests:
    """Full digests of one tensor on the sides that have it.

    ``found_on`` has the side of each changing chunk. ``differs`` says that the tensor is not the
    base's, in a pass that allows it.
    """

    record: TensorRecord
    digests: Mapping[Side, bytes]
    found_on: tuple[Side, ...]
    differs: bool


@dataclass(frozen=True)
class ModelDigests:
    """Full digests of the base and the result, over the tensors of a pass.

    ``chunks`` counts the changing chunks found on each side. ``differing`` names the tensors that
    are not the base's.
    """

    base: bytes
    result: bytes
    chunks: dict[Side, int]
    differing: list[str]

    @classmethod
    def of(cls, tensors: Iterable[TensorDigests]) -> ModelDigests:
        """Put the digests of all tensors together."""
        found = list(tensors)
        base, result = (
            model_digest(
                (one.record.name, one.digests[side]) for one in found if side in one.digests
            )
            for side in OTHER
        )
        chunks = {side: sum(one.found_on.count(side) for one in found) for side in OTHER}
        return cls(base, result, chunks, [one.record.name for one in found if one.differs])

    def is_promised_by(self, patch: Patch) -> bool:
        """Whether the patch states both digests."""
        return (self.base, self.result) == (patch.index.base_digest, patch.index.result_digest)


def pass_over_model(
    patch: Patch,
    model: Model,
    records: Sequence[TensorRecord],
    work: ChunkWork,
    stage: str,
    runtime: Runtime,
    may_differ: bool = False,
) -> ModelDigests:
    """Work on all chunks of ``records`` and put their digests together.

    Each rank passes over its own run of the tensors, and every rank gets all digests. A tensor of
    the model is identified by the digests in the index.

    Raises:
        WrongBaseError: naming the first tensor that is not the expected one, unless it may differ.
    """
    ranks = runtime.ranks
    runs = deal([record.nbytes for record in records], ranks.size)
    own = runs[ranks.rank]

    def pass_over_own() -> bytes:
        tensors = pass_over_tensors(patch, model, records, work, stage, runtime, may_differ, own)
        with closing(tensors):
            return json.dumps(
                [
                    ({side: one.hex() for side, one in t.digests.items()}, t.found_on, t.differs)
                    for t in tensors
                ]
            ).encode()

    ranks.agree("patch", patch.root)
    messages = zip(runs, ranks.gather(stage, pass_over_own), strict=True)
    return ModelDigests.of(
        _unpack(records[number], found)
        for run, message in messages
        for number, found in zip(run, json.loads(message), strict=True)
    )


def pass_over_tensors(
    patch: Patch,
    model: Model,
    records: Sequence[TensorRecord],
    work: ChunkWork,
    stage: str,
    runtime: Runtime,
    may_differ: bool = False,
    run: range | None = None,
) -> Generator[TensorDigests, None, None]:
    """Yield the digests tensor by tensor, while threads work on the chunks that follow.

    Otherwise as :func:`pass_over_model`, for the records of ``run`` (all by default), in this
    process alone.
    """
    run = range(len(records)) if run is None else run
    transition = Transition(patch, model.path)
    jobs = (
        (records[number], chunk)
        for number in run
        for chunk in grid(records[number].words, patch.chunk_words)
    )
    task = runtime.task(stage, sum(records[number].nbytes for number in run), "bytes")
    with closing(runtime.map(lambda job: work(*job), jobs)) as results:
        for number in run:
            record = records[number]
            chunks = grid(record.words, patch.chunk_words)
            found = [next(results) for _ in chunks]
            digests = _tensor_digests(record, chunks, found)
            known = number >= len(model.tensors) or transition.knows(record, digests, found)
            if not known and not may_differ:
                raise transition.wrong(record.name, "its values differ")
            task.advance(record.nbytes, record.name)
            sides = tuple(chunk.found_on for chunk in found if chunk.found_on)
            yield TensorDigests(record, digests, sides, not known)


def _tensor_digests(
    record: TensorRecord, chunks: Sequence[Chunk], found: Sequence[ChunkDigests]
) -> dict[Side, bytes]:
    digests = {}
    for side in OTHER:
        shape = record.shape_on(side)
        if shape is not None:
            pairs = zip(chunks, found, strict=True)
            own = [one.on(side) for chunk, one in pairs if words_on(record, chunk, side)]
            digests[side] = tensor_digest(record.dtype.name, shape, own)
    return digests


def _unpack(record: TensorRecord, found: list[Any]) -> TensorDigests:
    digests, sides, differs = found
    full = {side: bytes.fromhex(digest) for side, digest in digests.items()}
    return TensorDigests(record, full, tuple(sides), differs)
