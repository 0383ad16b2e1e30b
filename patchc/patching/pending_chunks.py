"""Takes a model to its other side in its own files: read everything, then write what must change.

The first pass accepts a model whose digest is the base's or the result's, and one that an
interrupted run left: each chunk is on one of the two sides. So a run can always be repeated.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.errors import PatchcError, UnsupportedInputError, WrongBaseError
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.patching.digest import chunk_digests, digest_of
from patchc.patching.digest_pass import pass_over_model
from patchc.patching.merge_options import irreversible
from patchc.patching.rewrite import VERBS, WriteWords
from patchc.patching.states import find_chunk_sides, match_tensors
from patchc.patching.tensor_sides import read_side
from patchc.patching.transition import ChunkDigests, Transition, unsound
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side


@dataclass(frozen=True)
class Pending:
    """What is left to do to reach side ``target``.

    Attributes:
        target: the side to reach.
        chunks: the chunks to write, in the model's order.
        done: number of changing chunks that are on the target already.
        digests: tensor name → full digests of its chunks before the run.
    """

    target: Side
    chunks: list[tuple[TensorRecord, ChunkRecord]]
    done: int
    digests: dict[str, list[bytes]]

    def nbytes(self, patch: Patch) -> int:
        """Bytes of the chunks to write."""
        return sum(_nbytes(patch, record, change) for record, change in self.chunks)

    def shards(self, model: Checkpoint) -> list[str]:
        """Names of the shards that hold them."""
        return sorted({model.tensors[record.name].shard for record, _ in self.chunks})


def check_in_place(patch: Patch, target: Side) -> None:
    """Refuse a patch that cannot be applied or reverted in place.

    Raises:
        UnsupportedInputError: it has additive values, or changes more than the values of tensors.
    """
    if patch.additive and target == "base":
        raise irreversible(patch)
    if patch.additive:
        raise UnsupportedInputError(
            f"{patch.path} holds additive values: a run in place could not be repeated after an "
            "interruption, for it would add them twice; write a copy with -o"
        )
    if patch.index.files or not patch.index.keeps_tensors:
        changed = [f"tensor {one.name!r}" for one in patch.index.records if not one.is_plain]
        changed += [f"file {file.name!r}" for file in patch.index.files]
        raise UnsupportedInputError(
            f"{patch.path} is an update that changes more than the values of tensors "
            f"({changed[0]}); write a copy with -o, or compare with diff --weights-only"
        )


def everything(patch: Patch, model: Checkpoint, target: Side) -> Pending:
    """All changing chunks of a model, without reading it."""
    changes = [
        (record, patch.index.chunk(place))
        for record in map(patch.index.tensors.__getitem__, model.tensors)
        for place in record.chunks
    ]
    return Pending(target, changes, 0, {})


def find_pending(patch: Patch, model: Checkpoint, target: Side, runtime: Runtime) -> Pending:
    """Read the whole model and the whole patch, and find the chunks that are not on ``target`` yet.

    The patch passes :func:`check_in_place`. Progress counts the bytes read.

    Raises:
        WrongBaseError: naming the first tensor with a chunk on neither side.
        ResultMismatchError: the patch's own digests contradict each other.
        PatchFormatError: a body is damaged.
        CheckpointError: a file cannot be read, or was changed while in use.
    """
    match_tensors(patch, model)
    digests = _read_digests(patch, model, runtime)
    found = digest_of(model, digests)
    if found not in (patch.index.base_digest, patch.index.result_digest):
        try:
            _check_between(patch, model, target, runtime)
        except WrongBaseError as error:
            raise WrongBaseError(
                f"{error}. Nothing was written. If an earlier run in place was cut off, what it "
                "was writing is torn there: bring that file back from an intact copy of the base "
                "or of the result, and run again"
            ) from error
    model.check_unchanged()
    patch.check_bodies()
    changes = everything(patch, model, target).chunks
    pending = []
    if found != patch.index.digest_on(target):
        transition = Transition(patch, model.path)
        pending = [
            (record, change)
            for record, change in changes
            if transition.side_of(change, digests[record.name][change.number], target) != target
        ]
    return Pending(target, pending, len(changes) - len(pending), digests)


def _read_digests(patch: Patch, model: Checkpoint, runtime: Runtime) -> dict[str, list[bytes]]:
    tensors = model.tensors.values()
    task = runtime.task("verify", sum(tensor.nbytes for tensor in tensors), "bytes")
    digests = {}
    with closing(chunk_digests(model, tensors, patch.chunk_words, runtime)) as found:
        for tensor, chunks in zip(tensors, found, strict=True):
            digests[tensor.name] = chunks
            task.advance(tensor.nbytes, tensor.name)
    return digests


def _check_between(patch: Patch, model: Checkpoint, target: Side, runtime: Runtime) -> None:
    """Check a model that is partly on ``target`` by taking the rest there in memory."""
    transition = Transition(patch, model.path)

    def settle(tensor: TensorRecord, chunk: Chunk) -> ChunkDigests:
        words = read_side(model, tensor, chunk, target, runtime.buffers.words)
        return transition.settle(tensor, chunk, words, target)

    records = [patch.index.tensors[name] for name in model.tensors]
    found = pass_over_model(patch, model, records, settle, "verify", runtime, may_differ=True)
    if found.result != patch.index.digest_on(target):
        find_chunk_sides(patch, model, runtime)  # names the tensor
        raise unsound(patch)


def rewrite_pending(
    patch: Patch, model: Checkpoint, pending: Pending, write: WriteWords, runtime: Runtime
) -> None:
    """Write the pending chunks, and check each before it is written.

    Worker threads call ``write``, which makes a chunk durable before the next one. Progress counts
    the bytes written.

    Raises:
        ResultMismatchError: the outcome is not the promised one; that chunk was not written.
        CheckpointError, StorageError: a file cannot be read, or ``write`` failed.
    """
    target, transition = pending.target, Transition(patch, model.path)

    def take(job: tuple[TensorRecord, ChunkRecord]) -> bytes:
        tensor, change = job
        first = change.number * patch.chunk_words
        count = patch.words_in_chunk(tensor, change.number)
        words = runtime.buffers.words(count, tensor.dtype.word)
        model.read_words(model.tensors[tensor.name], first, words)
        reached = transition.cross(tensor, change, words, target)
        write(tensor.name, first, words)
        return reached

    task = runtime.task(VERBS[target], pending.nbytes(patch), "bytes")
    digests = {name: list(chunks) for name, chunks in pending.digests.items()}
    try:
        with closing(runtime.map(take, pending.chunks)) as results:
            for (tensor, change), reached in zip(pending.chunks, results, strict=True):
                digests[tensor.name][change.number] = reached
                task.advance(_nbytes(patch, tensor, change), tensor.name)
        if digest_of(model, digests) != patch.index.digest_on(target):
            raise unsound(patch)
    except PatchcError as error:
        raise type(error)(f"{error}; {left_behind(model.path, target)}") from error


def left_behind(model: object, target: Side) -> str:
    """Say how an interrupted run in place leaves the model, and what to do."""
    return (
        f"{model} may be partly patched; the same command, run again, goes on, and "
        f"{VERBS[OTHER[target]]} --in-place takes it back"
    )


def _nbytes(patch: Patch, record: TensorRecord, change: ChunkRecord) -> int:
    return patch.words_in_chunk(record, change.number) * record.dtype.word_bytes
