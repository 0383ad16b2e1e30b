"""The report of apply and revert, on a copy and in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchc.checkpoint.left_aside import LeftAside
from patchc.patching.code_files import CodeFile
from patchc.patching.foreign_names import NameNote
from patchc.patching.left_alone import SideFile
from patchc.patching.merge_options import MergeReport
from patchc.patching.side_files import SideFileChange
from patchc.signing.trust import PolicyAnswer


@dataclass(frozen=True)
class ApplyReport:
    """What apply or revert wrote, or with ``dry_run`` the most that it would write.

    Attributes:
        model: the model that was given.
        out: the folder or file that was written; None in place.
        in_place: whether the model's own files were written.
        dry_run: whether nothing was written; the model's contents were then not compared.
        files: the safetensors files written: those of the copy; in place, those that changed, with
            symbolic links followed.
        nbytes: bytes written into them: all of a copy; in place, those of the written chunks.
        tensors: tensors in the written model.
        changed_tensors: tensors of the written model that the patch changes or adds.
        changed_words: words that the patch changes in them.
        side_files: number of other files of the copy; 0 in place.
        left_out: weight files of the model's folder that do not belong to the checkpoint and were
            not copied, because they hold weights that the patch does not change; empty in place.
        left_aside: the same files, and why each is not the model; in place too.
        chunks: in place, the chunks written; 0 for a model that was as asked for already.
        chunks_kept: in place, the changing chunks that were as asked for already.
        chunks_restored: in place, the torn chunks that an interrupted run left and that were
            restored.
        written: the side files that the patch adds, changes or removes in the copy.
        left_alone: the side files that the patch changes and that were left as the model has them,
            or lacks them; in place, those that are not on the side that was reached.
        code: those of ``written`` that a loader or an interpreter would run.
        name_notes: names in the copy that other systems cannot have, or not tell apart.
        merged: how an additive patch was merged; None for exact steps.
        policies: the policies that the patch satisfies, and its signatures as each sees them.
    """

    model: Path
    out: Path | None
    in_place: bool
    dry_run: bool
    files: tuple[Path, ...]
    nbytes: int
    tensors: int
    changed_tensors: int
    changed_words: int
    side_files: int = 0
    left_out: tuple[Path, ...] = ()
    left_aside: tuple[LeftAside, ...] = ()
    chunks: int = 0
    chunks_kept: int = 0
    chunks_restored: int = 0
    written: tuple[SideFileChange, ...] = ()
    left_alone: tuple[SideFile, ...] = ()
    code: tuple[CodeFile, ...] = ()
    name_notes: tuple[NameNote, ...] = ()
    merged: MergeReport | None = None
    policies: tuple[PolicyAnswer, ...] = ()
