"""Finds what a run in place has to write: the chunks that are not on the target side yet.

It accepts a model whose digest is the base's or the result's, and one that an interrupted run left:
each chunk is on one of the two sides, or torn and can be restored. So a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.errors import UnsupportedInputError
from patchc.formats import ChunkRecord, Patch, TensorRecord
from patchc.patching.cards import is_card
from patchc.patching.digest import digest_of, read_digests
from patchc.patching.digest_pass import pass_over_model
from patchc.patching.file_changes import is_layout
from patchc.patching.left_alone import CARDS_ALONE, SideFileOptions
from patchc.patching.merge_options import irreversible
from patchc.patching.states import find_chunk_sides
from patchc.patching.torn_chunks import Images, TornChunks
from patchc.patching.transition import ChunkDigests, Transition, unsound
from patchc.runtime.runtime import Runtime
from patchc.sides import Side


@dataclass(frozen=True)
class Pending:
    """What is left to do to reach side ``target``.

    Attributes:
        target: the side to reach.
        chunks: the chunks to write, in the model's order.
        done: number of changing chunks that are on the target already.
        digests: tensor name → full digests of its chunks before the run, torn ones as they will be
            restored.
        torn: the chunks to restore first.
    """

    target: Side
    chunks: list[tuple[TensorRecord, ChunkRecord]]
    done: int
    digests: dict[str, list[bytes]]
    torn: TornChunks

    def nbytes(self, patch: Patch) -> int:
        """Bytes of the chunks to write."""
        return sum(chunk_nbytes(patch, record, change) for record, change in self.chunks)

    def shards(self, model: Checkpoint) -> list[str]:
        """Names of the shards that will be written."""
        names = {record.name for record, _ in self.chunks} | {name for name, _ in self.torn.places}
        return sorted({model.tensors[name].shard for name in names})


def check_in_place(patch: Patch, target: Side, options: SideFileOptions = CARDS_ALONE) -> None:
    """Refuse a patch that cannot be applied or reverted in place.

    Raises:
        UnsupportedInputError: it has additive values, or changes more than the values of tensors
            and side files that ``options`` leave alone.
    """
    if patch.additive and target == "base":
        raise irreversible(patch)
    if patch.additive:
        raise UnsupportedInputError(
            f"{patch.path} holds additive values: a run in place could not be repeated after an "
            "interruption, for it would add them twice; write a copy with -o"
        )
    changed = [f"tensor {one.name!r}" for one in patch.index.records if not one.is_plain]
    files = patch.index.files
    changed += [f"file {file.name!r}" for file in files if is_layout(file)]
    beside = [file.name for file in files if not is_layout(file)]
    refused = [f"file {name!r}" for name in beside if options.refuse(is_card(name))]
    if changed or refused:
        ways = ["write a copy with -o"]
        if not changed and not options.strict:
            ways.append("give --keep-side-files, which leaves the model's own beside new weights")
        rename = " and --rename" if any(map(_is_renamed, patch.index.records)) else ""
        ways.append(f"ask its maker for a patch made with diff --weights-only{rename}")
        raise UnsupportedInputError(
            f"{patch.path} is an update that changes more than the values of tensors "
            f"({[*changed, *refused][0]}); {', or '.join(ways)}"
        )


def _is_renamed(record: TensorRecord) -> bool:
    return record.only == "base" and record.reference not in (None, record.name)


def everything(patch: Patch, model: Checkpoint, target: Side) -> Pending:
    """All changing chunks of a model, without reading it."""
    changes = [
        (record, patch.index.chunk(place))
        for record in map(patch.index.tensors.__getitem__, model.tensors)
        for place in record.chunks
    ]
    return Pending(target, changes, 0, {}, TornChunks(patch, model))


def find_pending(
    patch: Patch,
    model: Checkpoint,
    target: Side,
    runtime: Runtime,
    images: Sequence[Images] = (),
) -> Pending:
    """Read the whole model and the whole patch, and find the chunks that are not on ``target`` yet.

    The patch passes :func:`check_in_place`, and the model has its tensors. Progress counts the
    bytes read.

    Args:
        images: where to look for the whole words of torn chunks.

    Raises:
        WrongBaseError: naming the first tensor with a chunk on neither side that is not torn, or
            that no image brings back.
        ResultMismatchError: the patch's own digests contradict each other.
        PatchFormatError: a body is damaged.
        CheckpointError: a file cannot be read, or was changed while in use.
    """
    digests = read_digests(model, patch.chunk_words, "verify", runtime)
    found = digest_of(model, digests)
    torn = TornChunks(patch, model)
    if found not in (patch.index.base_digest, patch.index.result_digest):
        torn.find(digests, images)
        _check_between(patch, model, torn, target, runtime)
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
    return Pending(target, pending, len(changes) - len(pending), digests, torn)


def _check_between(
    patch: Patch, model: Checkpoint, torn: TornChunks, target: Side, runtime: Runtime
) -> None:
    """Check a model that is partly on ``target`` by taking the rest there in memory."""
    transition = Transition(patch, model.path)

    def settle(tensor: TensorRecord, chunk: Chunk) -> ChunkDigests:
        words = torn.read(tensor, chunk, runtime.buffers.words(chunk.count, tensor.dtype.word))
        return transition.settle(tensor, chunk, words, target)

    records = [patch.index.tensors[name] for name in model.tensors]
    found = pass_over_model(patch, model, records, settle, "verify", runtime, may_differ=True)
    if found.result != patch.index.digest_on(target):
        find_chunk_sides(patch, model, runtime, torn)  # names the tensor
        raise unsound(patch)


def chunk_nbytes(patch: Patch, record: TensorRecord, change: ChunkRecord) -> int:
    """Bytes of a chunk."""
    return patch.words_in_chunk(record, change.number) * record.dtype.word_bytes
