"""Finds the state of a model: the patch's base, its result, or partly patched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchc.checkpoint import Checkpoint
from patchc.chunks import Chunk
from patchc.errors import WrongBaseError
from patchc.formats import Patch, TensorRecord
from patchc.patching.digest import read_digests
from patchc.patching.digest_pass import ModelDigests, pass_over_model
from patchc.patching.file_changes import FileChanges
from patchc.patching.left_alone import CARDS_ALONE, SideFile, SideFileOptions
from patchc.patching.model_of_patch import missing_beside
from patchc.patching.tensor_sides import read_side
from patchc.patching.torn_chunks import Images, TornChunks
from patchc.patching.transition import ChunkDigests, Transition, unsound
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side

_GET_FILE = "put it there as the patch's maker has it, or ask for a patch of diff --weights-only"


@dataclass(frozen=True)
class ModelState:
    """What was found on each side.

    Attributes:
        side: the side of the weights and their layout; None if they are partly on each. For a patch
            that changes side files alone, the side of those.
        chunks: number of changing chunks on each side.
        files: number of changing files on each side.
        apart: the side files that are not on ``side``; on neither, where it is None.
    """

    side: Side | None
    chunks: dict[Side, int]
    files: dict[Side, int]
    apart: tuple[SideFile, ...]

    @property
    def name(self) -> Literal["base", "patched", "partly patched"]:
        """The state in words."""
        if self.side is None:
            return "partly patched"
        return "base" if self.side == "base" else "patched"


def find_state(
    patch: Patch,
    model: Checkpoint,
    runtime: Runtime,
    options: SideFileOptions = CARDS_ALONE,
    otherwise: Side = "base",
) -> ModelState:
    """Read the whole model and find its state; ``otherwise`` is its side where nothing tells.

    Raises:
        WrongBaseError: naming the first tensor that is on neither side, or file of the layout that
            is not on the weights' side.
        ResultMismatchError: the patch's own digests contradict each other.
        UnsupportedInputError: the patch changes the layout and the model is one file.
    """
    files = FileChanges(patch, model, options)
    tensors = None if patch.index.keeps_tensors else find_side(patch, model)
    chunks = find_chunk_sides(patch, model, runtime).chunks
    held: list[Side] = [side for side in OTHER if chunks[side] or tensors == side]
    files.check()
    side = None if len(held) > 1 else files.side_with(held[0] if held else None) or otherwise
    return _state(side, chunks, files)


def _state(side: Side | None, chunks: dict[Side, int], files: FileChanges) -> ModelState:
    counts: dict[Side, int] = {one: files.count(one) for one in OTHER}
    return ModelState(side, chunks, counts, files.apart(side))


def find_torn_state(
    patch: Patch,
    model: Checkpoint,
    images: Images,
    runtime: Runtime,
    options: SideFileOptions = CARDS_ALONE,
) -> tuple[ModelState, int]:
    """Find the state of a model with torn chunks, which is partly patched, and count these.

    The chunks are counted as they would be restored. For patches that can be applied in place.

    Raises:
        WrongBaseError: as :func:`find_state`, or ``images`` do not bring a chunk back.
    """
    torn = TornChunks(patch, model)
    torn.find(read_digests(model, patch.chunk_words, "verify", runtime), [images])
    chunks = find_chunk_sides(patch, model, runtime, torn).chunks
    return _state(None, chunks, FileChanges(patch, model, options)), len(torn.places)


def find_chunk_sides(
    patch: Patch, model: Checkpoint, runtime: Runtime, torn: TornChunks | None = None
) -> ModelDigests:
    """Find the side of every changing chunk; of ``torn`` ones, as they would be restored.

    Chunks on the result are taken back in memory, so that the whole base is identified, unchanged
    chunks included. Tensors of only one side are compared as they are. In the answer, ``result``
    is the digest of the model as it was found.

    Raises:
        WrongBaseError: naming the first tensor that is on neither side.
        ResultMismatchError: a chunk does not go back to its base; the patch is not sound.
        PatchFormatError: a body that was decoded is damaged.
    """
    side = find_side(patch, model)
    transition = Transition(patch, model.path)

    def revert_found(tensor: TensorRecord, chunk: Chunk) -> ChunkDigests:
        if torn:
            words = torn.read(tensor, chunk, runtime.buffers.words(chunk.count, tensor.dtype.word))
        else:
            words = read_side(model, tensor, chunk, side, runtime.buffers.words)
        return transition.revert_found(tensor, chunk, words, side)

    own = patch.index.tensors_on(side)
    records = [own[name] for name in model.tensors]
    found = pass_over_model(patch, model, records, revert_found, "verify", runtime)
    if side == "base" and found.base != patch.index.base_digest:
        raise unsound(patch)
    patched = side == "result" and not found.chunks["base"]
    if patched and found.result != patch.index.result_digest:
        raise unsound(patch)
    return found


def find_side(patch: Patch, model: Checkpoint) -> Side:
    """The side whose tensors the model has by name, dtype and shape; the base if both fit.

    Raises:
        WrongBaseError: naming the first tensor that differs from the base.
    """
    try:
        match_tensors(patch, model)
    except WrongBaseError:
        if patch.index.keeps_tensors:
            raise
        try:
            match_tensors(patch, model, "result")
        except WrongBaseError:
            match_tensors(patch, model)
        return "result"
    return "base"


def match_tensors(patch: Patch, model: Checkpoint, side: Side = "base") -> None:
    """Check that the model has the tensors of one of the patch's sides: names, dtypes and shapes.

    Raises:
        WrongBaseError: naming the first tensor that differs.
    """
    records = patch.index.tensors_on(side)
    transition = Transition(patch, model.path)
    of_side = f"the patch's {'base' if patch.index.keeps_tensors else side}"
    for tensor in model.tensors.values():
        record = records.get(tensor.name)
        if record is None:
            raise transition.wrong(tensor.name, f"{of_side} does not have it")
        shape = record.shape_on(side)
        if (record.dtype, shape) != (tensor.dtype, tensor.shape):
            raise transition.wrong(
                tensor.name,
                f"it is {tensor.dtype.name} {list(tensor.shape)} and {of_side} has "
                f"{record.dtype.name} {list(shape or ())}",
            )
    for name in records:
        if name not in model.tensors:
            whole = _model_of_shard(model.path)
            if whole:
                advice = f"it is one shard: name the folder {whole}"
                raise transition.wrong(name, "the model does not have it", advice)
            if file := missing_beside(patch, model):
                raise transition.wrong(name, f"the model does not have it: {file}", _GET_FILE)
            raise transition.wrong(name, "the model does not have it")


def _model_of_shard(path: Path) -> Path | None:
    is_shard = path.is_file() and (path.parent / "model.safetensors.index.json").exists()
    return path.parent if is_shard else None
