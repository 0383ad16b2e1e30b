"""Check whether a patch is intact, and what state a model is in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from patchc.checkpoint import Checkpoint, open_checkpoint
from patchc.errors import WrongBaseError
from patchc.formats import Patch, TensorRecord, open_patch
from patchc.patching.additive_merge import EntryCount
from patchc.patching.in_place_journal import interrupted, left_journal
from patchc.patching.states import find_state, find_torn_state
from patchc.patching.torn_chunks import MAY_BE_TORN
from patchc.patching.transition import UnknownChunkError
from patchc.progress import Progress, ignore_progress
from patchc.runtime.memory import need_to_patch
from patchc.runtime.runtime import Runtime

State = Literal["intact", "base", "patched", "partly patched", "neither", "not the base"]


@dataclass(frozen=True)
class VerifyReport:
    """The answer of :func:`verify`.

    Attributes:
        state: "intact" if no model was given: the patch file is whole and every body decodes.
            Otherwise the patch is intact too, and the state is the model's. An additive patch
            cannot be recognised in a model, which is then "base" or "not the base".
        root: the patch's root digest, in hexadecimal.
        chunks_at_base, chunks_at_result: changing chunks of the model on each side; torn ones count
            on the side that they will be restored to.
        chunks_torn: chunks that an interrupted run in place left torn, and that its journal brings
            back.
        journal: whether the journal of such a run, with this patch, is beside the model.
        files_at_base, files_at_result: changing files of the model on each side.
        difference: for an unknown model, the first tensor or file that differs, and how.
    """

    state: State
    root: str
    chunks_at_base: int = 0
    chunks_at_result: int = 0
    chunks_torn: int = 0
    journal: bool = False
    files_at_base: int = 0
    files_at_result: int = 0
    difference: str = ""


def verify(
    patch: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    progress: Progress = ignore_progress,
) -> VerifyReport:
    """Check a patch file in full, and find the state of a model if one is given.

    With a patch that changes nothing, the state is "base".

    Args:
        patch: a patch file.
        model: a checkpoint folder or a safetensors file; None checks the patch alone.
        threads: worker threads; None means one per core.
        max_memory: bytes that the process may take, to within a tenth; it limits the threads. None
            means 300 MB.
        progress: called with the chunks and bytes done.

    Raises:
        PatchFormatError, UnsupportedPatchError: the patch is damaged or not readable.
        CheckpointError, UnsupportedInputError: the model cannot be read.
        ResultMismatchError: the patch's own digests contradict each other.
    """
    with open_patch(patch) as opened, Runtime(threads, max_memory, progress=progress) as runtime:
        runtime.fit(need_to_patch(opened))
        _check_bodies(opened, runtime)
        root = opened.root.hex()
        if model is None:
            return VerifyReport("intact", root)
        with open_checkpoint(model) as checkpoint:
            report = find_report(opened, checkpoint, runtime)
            checkpoint.check_unchanged()
            return report


def find_report(patch: Patch, model: Checkpoint, runtime: Runtime) -> VerifyReport:
    """Read a model and describe its state; the bodies of chunks on the base are not all decoded.

    Raises:
        CheckpointError, ResultMismatchError, UnsupportedInputError: as :func:`verify`.
    """
    root, torn = patch.root.hex(), 0
    with left_journal(model.path) as left:
        own = left if left and left.group.root == root else None
        try:
            found = find_state(patch, model, runtime)
        except WrongBaseError as error:
            try:
                if own is None:
                    raise
                found, torn = find_torn_state(patch, model, own, runtime)
            except WrongBaseError:
                state: State = "not the base" if patch.additive else "neither"
                told = (
                    str(interrupted(model.path, left.group)) if left and not own else _advise(error)
                )
                return VerifyReport(state, root, journal=bool(own), difference=told)
    return VerifyReport(
        "partly patched" if torn else found.name,
        root,
        chunks_at_base=found.chunks["base"],
        chunks_at_result=found.chunks["result"],
        chunks_torn=torn,
        journal=bool(own),
        files_at_base=found.files["base"],
        files_at_result=found.files["result"],
    )


def _advise(error: WrongBaseError) -> str:
    return f"{error}. {MAY_BE_TORN}" if isinstance(error, UnknownChunkError) else str(error)


def _check_bodies(patch: Patch, runtime: Runtime) -> None:
    count = EntryCount(patch)

    def read(job: tuple[TensorRecord, int]) -> None:
        tensor, change = job[0], patch.index.chunk(job[1])
        if patch.additive:
            count.add(patch.read_deltas(tensor, change))
        elif not patch.needs_words(change):
            patch.read_changes(tensor, change)

    jobs = [(tensor, place) for tensor in patch.index.records for place in tensor.chunks]
    task = runtime.task("check patch", len(jobs), "chunks")
    for _ in runtime.map(read, jobs):
        task.advance(1)
    patch.check_bodies()
    count.check()
