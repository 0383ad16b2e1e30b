"""One walk over all chunks of a model, and the digests of tensors and models that come of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from patchc.chunks import Chunk, grid
from patchc.dtypes import Words
from patchc.errors import ResultMismatchError, WrongBaseError
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.hashing import chunk_digest, model_digest, short, tensor_digest
from patchc.patching.tensor_sides import words_on
from patchc.progress import Progress, ProgressEvent
from patchc.runtime.ranks import deal
from patchc.runtime.workers import Workers
from patchc.sides import OTHER, Side


class Walkable(Protocol):
    """A model: how messages name it, and its tensors by name."""

    @property
    def path(self) -> object: ...  # noqa: D102

    @property
    def tensors(self) -> Mapping[str, object]: ...  # noqa: D102


@dataclass(frozen=True)
class Job:
    """A chunk of a tensor."""

    record: TensorRecord
    chunk: Chunk


@dataclass(frozen=True)
class ChunkDigests:
    """Full digests of one chunk in the base and in the result.

    ``state`` is the one that it was found in; a chunk that the patch does not touch has none.
    """

    base: bytes
    result: bytes
    state: Side | None

    def on(self, side: Side) -> bytes:
        """The digest on one side."""
        return self.base if side == "base" else self.result


@dataclass(frozen=True)
class WalkedDigests:
    """Full digests of the base model and the result model, of the tensors that were walked over.

    ``chunks_at_base`` and ``chunks_at_result`` count the changing chunks found in each state;
    ``differing`` names the tensors that are not those of the patch's base, where that is allowed.
    """

    base: bytes
    result: bytes
    chunks_at_base: int
    chunks_at_result: int
    differing: tuple[str, ...] = ()


@dataclass(frozen=True)
class WalkedTensor:
    """Full digests of one tensor on the sides that have it.

    ``states`` are those in which its changing chunks were found; ``differs`` says that it is not
    the one of the patch's base, where that is allowed.
    """

    record: TensorRecord
    digests: Mapping[Side, bytes]
    states: tuple[Side, ...]
    differs: bool


def walk(
    patch: Patch,
    model: Walkable,
    records: Sequence[TensorRecord],
    run: Callable[[Job], ChunkDigests],
    stage: str,
    workers: Workers,
    progress: Progress,
    may_differ: bool = False,
) -> WalkedDigests:
    """Run over all chunks of ``records`` and put their digests together.

    A tensor that the model has is identified by the digests that the index holds of it. Each rank
    walks over its own part, and all get the digests of everything.
    """
    ranks = workers.ranks
    runs = deal([_nbytes(record) for record in records], ranks.size)

    def walk_own() -> bytes:
        with closing(
            walk_tensors(
                patch, model, records, run, stage, workers, progress, may_differ, runs[ranks.rank]
            )
        ) as tensors:
            return json.dumps([_pack(tensor) for tensor in tensors]).encode()

    ranks.agree("patch", patch.root)
    parts = zip(runs, ranks.gather(stage, walk_own), strict=True)
    return model_digests(
        _unpack(records[number], found)
        for of_rank, part in parts
        for number, found in zip(of_rank, json.loads(part), strict=True)
    )


def walk_tensors(
    patch: Patch,
    model: Walkable,
    records: Sequence[TensorRecord],
    run: Callable[[Job], ChunkDigests],
    stage: str,
    workers: Workers,
    progress: Progress,
    may_differ: bool = False,
    part: range | None = None,
) -> Generator[WalkedTensor, None, None]:
    """The same, tensor after tensor, while chunks of the following ones are worked on.

    Only over the records of ``part``, where it is given, and in this process alone.
    """
    part = range(len(records)) if part is None else part
    total = sum(_nbytes(records[number]) for number in part)
    done = 0
    jobs = (
        Job(records[number], chunk) for number in part for chunk in _grid(patch, records[number])
    )
    with closing(workers.map(run, jobs)) as results:
        for number in part:
            record = records[number]
            chunks = _grid(patch, record)
            digests = [next(results) for _ in chunks]
            of_tensor: dict[Side, bytes] = {}
            for side in OTHER:
                shape = record.shape_on(side)
                if shape is not None:
                    pairs = zip(chunks, digests, strict=True)
                    own = [d.on(side) for chunk, d in pairs if words_on(record, chunk, side)]
                    of_tensor[side] = tensor_digest(record.dtype.name, shape, own)
            known = number >= len(model.tensors) or _is_known(patch, record, of_tensor, digests)
            if not known and not may_differ:
                raise wrong(patch, model, record.name, "its values differ")
            done += _nbytes(record)
            progress(ProgressEvent(stage, done, total, "bytes", record.name))
            states = tuple(digest.state for digest in digests if digest.state)
            yield WalkedTensor(record, of_tensor, states, not known)


def model_digests(tensors: Iterable[WalkedTensor]) -> WalkedDigests:
    """The digests of the models that tensors make up."""
    models: dict[Side, list[tuple[str, bytes]]] = {"base": [], "result": []}
    states: dict[Side, int] = {"base": 0, "result": 0}
    differing: list[str] = []
    for tensor in tensors:
        for side, digest in tensor.digests.items():
            models[side].append((tensor.record.name, digest))
        for state in tensor.states:
            states[state] += 1
        if tensor.differs:
            differing.append(tensor.record.name)
    base, result = model_digest(models["base"]), model_digest(models["result"])
    return WalkedDigests(base, result, states["base"], states["result"], tuple(differing))


def _pack(tensor: WalkedTensor) -> list[Any]:
    digests = {side: digest.hex() for side, digest in tensor.digests.items()}
    return [digests, tensor.states, tensor.differs]


def _unpack(record: TensorRecord, found: list[Any]) -> WalkedTensor:
    digests, states, differs = found
    full = {side: bytes.fromhex(digest) for side, digest in digests.items()}
    return WalkedTensor(record, full, tuple(states), differs)


def _nbytes(record: TensorRecord) -> int:
    return record.words * record.dtype.word_bytes


def _grid(patch: Patch, record: TensorRecord) -> list[Chunk]:
    return grid(record.words, patch.chunk_words)


def _is_known(
    patch: Patch,
    record: TensorRecord,
    of_tensor: Mapping[Side, bytes],
    chunks: Sequence[ChunkDigests],
) -> bool:
    side: Side = "result" if record.only == "result" else "base"
    if record.digest is not None:
        return short(of_tensor[side]) == record.digest
    rows = zip(chunks, record.chunks, strict=True)
    return all(
        short(found.on(side)) == patch.index.chunk(row).digest_on(side) for found, row in rows
    )


def take_step(
    patch: Patch, record: TensorRecord, row: ChunkRecord, words: Words, kept: int, target: Side
) -> bytes:
    """Take a chunk's words to the result, or back to the base, in place.

    Returns:
        The full digest of the first ``kept`` words then, which was compared.

    Raises:
        ResultMismatchError: the outcome is not the promised one.
        PatchFormatError: the chunk's body is damaged.
    """
    patch.change_words(record, row, words, target)
    return check_reached(patch, record, row, words[:kept], target)


def check_reached(
    patch: Patch, record: TensorRecord, row: ChunkRecord, words: Words, target: Side
) -> bytes:
    """The full digest of a chunk that was taken to a side.

    Raises:
        ResultMismatchError: it is not the promised one.
    """
    reached = chunk_digest(words)
    if short(reached) != row.digest_on(target):
        raise ResultMismatchError(
            f"{patch.path}: tensor {record.name!r}, chunk {row.number}: the outcome is "
            "not the promised one; the patch is not sound, fetch or build it again"
        )
    return reached


def unsound(patch: Patch) -> ResultMismatchError:
    """The error for a patch whose short digests match where its long ones do not."""
    return ResultMismatchError(
        f"{patch.path}: every chunk matches and the model's digest does not; the patch is not "
        "sound, fetch or build it again"
    )


def wrong(patch: Patch, model: Walkable, tensor: str, difference: str) -> WrongBaseError:
    """The error for a model that is not the expected one."""
    return WrongBaseError(
        f"{model.path} is not the model that {patch.path} was made for: tensor {tensor!r}: "
        f"{difference}"
    )
