"""Takes a whole model to the other side of a patch, chunk by chunk, and writes every chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.dtypes import Words
from patchc.formats import Patch, TensorRecord
from patchc.hashing import chunk_digest
from patchc.patching.additive_merge import AdditiveMerge
from patchc.patching.digest_pass import pass_over_model
from patchc.patching.states import match_tensors
from patchc.patching.tensor_sides import read_side, words_on
from patchc.patching.transition import ChunkDigests, Transition, unsound
from patchc.runtime.ranks import Ranks
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side

WriteWords = Callable[[str, int, Words], None]
"""Gets a tensor's name, the index of its first word and the words; runs in worker threads."""

VERBS: dict[Side, str] = {"base": "revert", "result": "apply"}
"""The command that leads to each side, also the name of its progress stage."""


def rewrite(
    patch: Patch, model: Checkpoint, write: WriteWords, target: Side, runtime: Runtime
) -> None:
    """Read every chunk of the model, take it to side ``target`` and write it.

    Checked on the way: each chunk before and after its change, and each tensor's identity. Checked
    at the end: the digest over all bodies, and the digests of both models in full.

    Raises:
        PatchFormatError: a body is damaged or was replaced.
        WrongBaseError: the first tensor, in the model's order, that is not the expected one.
        OtherSideError: a chunk is on ``target`` already.
        ResultMismatchError: the output would not be what the patch promises.
    """
    source = OTHER[target]
    transition = Transition(patch, model.path)

    def take(tensor: TensorRecord, chunk: Chunk) -> ChunkDigests:
        words = read_side(model, tensor, chunk, source, runtime.buffers.words)
        digests = transition.take(tensor, chunk, words, target)
        count = words_on(tensor, chunk, target)
        if count:
            write(tensor.name, chunk.first, words[:count])
        return digests

    match_tensors(patch, model, source)
    own = patch.index.tensors_on(source)
    records = [own[name] for name in model.tensors]
    records += [record for record in patch.index.records if record.only == target]
    found = pass_over_model(patch, model, records, take, VERBS[target], runtime)
    _check_bodies(patch, runtime.ranks)
    if not found.is_promised_by(patch):
        raise unsound(patch)


def merge(
    patch: Patch,
    model: Checkpoint,
    write: WriteWords,
    scales: Sequence[float],
    onto_descendant: bool,
    runtime: Runtime,
) -> list[str]:
    """Read every chunk of the model, add an additive patch to it with these scales, and write it.

    Args:
        patch, model, write: an additive patch, the model, and what gets every chunk.
        scales: one for each component, rounded to fp32 here.
        onto_descendant: accept tensors whose values are not the base's.
        runtime: its device, if there is one, adds to the chunks that change.

    Returns:
        Names of the tensors that are not the base's, in the model's order.

    Raises:
        WrongBaseError: the first tensor, in the model's order, that is not the base's.
        NumericError: a merged value is not finite; names tensor and flat index.
        PatchFormatError: a body is damaged, or the metadata claims another number of entries.
    """
    addition, pool = AdditiveMerge(patch, scales, runtime.buffers), runtime.pool
    transition = Transition(patch, model.path)

    def add(tensor: TensorRecord, chunk: Chunk) -> ChunkDigests:
        change = patch.index.find(tensor, chunk.number)
        staged = None
        if pool and change:
            staged = pool.words("words", chunk.count, tensor.dtype.word)
            words = staged.words
            model.read_words(model.tensors[tensor.name], chunk.first, words)
        else:
            words = read_side(model, tensor, chunk, "base", runtime.buffers.words)
        found = chunk_digest(words)
        if change:
            if not onto_descendant:
                transition.find_side(tensor, change, found)
            addition.add(tensor, change, words, staged)
        write(tensor.name, chunk.first, words)
        return ChunkDigests(found, found, None)

    match_tensors(patch, model)
    records = [patch.index.tensors[name] for name in model.tensors]
    found = pass_over_model(patch, model, records, add, "apply", runtime, onto_descendant)
    if found.base != patch.index.base_digest and not found.differing:
        raise unsound(patch)
    _check_bodies(patch, runtime.ranks)
    addition.entries.check(runtime.ranks)
    model.check_unchanged()
    return found.differing


def _check_bodies(patch: Patch, ranks: Ranks) -> None:
    """Check the bodies that all ranks have read."""
    for read in ranks.gather("bodies", patch.bodies.pack):
        patch.bodies.add(read)
    patch.check_bodies()
