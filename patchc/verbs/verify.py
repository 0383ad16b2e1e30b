"""Say whether a patch is intact, and what state a model is in."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from patchc.checkpoint import open_checkpoint
from patchc.errors import WrongBaseError
from patchc.formats import Patch, TensorRecord, open_patch
from patchc.patching.additive_merge import EntryCount
from patchc.patching.model_state import find_state
from patchc.progress import Progress, ProgressEvent, ignore_progress
from patchc.runtime.memory import threads_to_patch
from patchc.runtime.workers import Workers

State = Literal["intact", "base", "patched", "partly patched", "neither", "not the base"]


@dataclass(frozen=True)
class VerifyReport:
    """The answer of :func:`verify`.

    Attributes:
        state: "intact" where no model was given: the patch file is whole and every body decodes.
            Otherwise the same holds, and the model is the patch's base, patched with it, partly
            patched, or neither. Of an additive patch, it is the base or not the base: a model that
            holds such a patch cannot be recognised.
        root: the patch's root digest, in hexadecimal.
        chunks_at_base: changing chunks of the model that hold the base.
        chunks_at_result: changing chunks that hold the result.
        files_at_base, files_at_result: files that the patch changes, likewise.
        difference: where the model is not known, the first tensor or file that differs, and how.
    """

    state: State
    root: str
    chunks_at_base: int = 0
    chunks_at_result: int = 0
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
    """Check a patch file in full, and with a model which state that model is in.

    A patch that changes nothing finds its model in state "base".

    Raises:
        PatchFormatError, UnsupportedPatchError: the patch is damaged or not readable.
        CheckpointError, UnsupportedInputError: the model cannot be read.
        ResultMismatchError: the patch's own digests contradict each other.
    """
    with (
        open_patch(patch) as opened,
        Workers(threads_to_patch(opened, threads, max_memory)) as workers,
    ):
        _check_bodies(opened, workers, progress)
        root = opened.root.hex()
        if model is None:
            return VerifyReport("intact", root)
        with open_checkpoint(model) as checkpoint:
            try:
                found = find_state(opened, checkpoint, workers, progress)
            except WrongBaseError as error:
                unknown: State = "not the base" if opened.additive else "neither"
                return VerifyReport(unknown, root, difference=str(error))
        return VerifyReport(
            found.name,
            root,
            found.chunks_at_base,
            found.chunks_at_result,
            found.files_at_base,
            found.files_at_result,
        )


def _check_bodies(patch: Patch, workers: Workers, progress: Progress) -> None:
    count = EntryCount(patch)

    def read(tensor: TensorRecord, row: int) -> None:
        chunk = patch.index.chunk(row)
        if patch.additive:
            count.add(patch.read_deltas(tensor, chunk))
        elif not patch.needs_words(chunk):
            patch.read_changes(tensor, chunk)

    rows = [(tensor, row) for tensor in patch.index.records for row in tensor.chunks]
    with closing(workers.map(lambda pair: read(*pair), rows)) as reads:
        for done, _ in enumerate(reads, start=1):
            progress(ProgressEvent("check patch", done, len(rows), "chunks"))
    patch.check_bodies()
    count.check()
