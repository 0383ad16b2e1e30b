"""Applies or reverts a patch into a checked copy of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from patchc.checkpoint import (
    Checkpoint,
    CheckpointCopy,
    HeaderError,
    JoinedCopy,
    refuse_quantised,
)
from patchc.checkpoint.left_aside import SCORES
from patchc.checkpoint.writer import refuse_copies
from patchc.errors import (
    AlreadyPatchedError,
    NotPatchedError,
    OutputError,
    PartlyPatchedError,
    PatchcError,
    PatchFormatError,
    WrongBaseError,
)
from patchc.files import staged_file, staged_folder
from patchc.formats import Patch
from patchc.notes import note
from patchc.output_checks import check_output, check_space
from patchc.patching.apply_report import ApplyReport
from patchc.patching.code_files import CodeFile, code_to_write, refuse_code
from patchc.patching.file_changes import FileChanges
from patchc.patching.foreign_names import names_of_copy
from patchc.patching.in_place_journal import interrupted, left_journal
from patchc.patching.left_alone import CARDS_ALONE, SideFileOptions, named, note_left_alone, refusal
from patchc.patching.merge_options import MergeOptions, MergeReport, irreversible, plan_merge
from patchc.patching.model_of_patch import open_for_patch
from patchc.patching.rewrite import merge, rewrite
from patchc.patching.states import find_side, find_state, match_tensors
from patchc.patching.transition import OtherSideError
from patchc.paths import PathLike
from patchc.runtime.device_pool import HOST_BYTES
from patchc.runtime.memory import need_to_patch
from patchc.runtime.ranks import staged_by_first
from patchc.runtime.runtime import Runtime
from patchc.sides import OTHER, Side

_DEVICE_WORD_BYTES = 32  # a word; for each of two components its position, delta and old value


def write_patched_copy(
    patch: Patch,
    model_path: PathLike,
    out: Path,
    target: Side,
    options: MergeOptions,
    dry_run: bool,
    runtime: Runtime,
    allow_code: bool = False,
    side_files: SideFileOptions = CARDS_ALONE,
) -> ApplyReport:
    """Write the model on side ``target`` to ``out``; :func:`patchc.apply` states the contract."""
    with open_for_patch(model_path, patch) as model:
        if patch.additive and target == "base":
            raise irreversible(patch)
        merged = plan_merge(patch, options)
        if merged and merged.onto_descendant:
            refuse_quantised(model)
        check_output(out, (model.path, patch.path))
        if out.is_dir() and not model.is_folder:
            raise OutputError(f"output {out} is a folder and the model is a file; name a file")
        _fit(patch, merged, runtime)
        with runtime:
            files = FileChanges(patch, model, side_files)
            copy = _Copy(patch, model, out, target, runtime, files)
            try:
                return copy.write(merged, dry_run, allow_code, side_files)
            except WrongBaseError as error:
                with left_journal(model.path) as left:
                    if left:
                        raise interrupted(model.path, left.group) from error
                raise


def _fit(patch: Patch, merged: MergeReport | None, runtime: Runtime) -> None:
    """Choose the threads, and the device where additive values are added.

    Steps are added by the CPU: that takes less time than copying the words to a device and back.
    """
    pool = None
    if merged:
        pool = runtime.open_device()
    else:
        runtime.check_device()
    most = pool.most_threads(_DEVICE_WORD_BYTES * patch.chunk_words) if pool else None
    runtime.fit(need_to_patch(patch, HOST_BYTES if pool else 0), most)


@dataclass(frozen=True)
class _Copy:
    patch: Patch
    model: Checkpoint
    out: Path
    target: Side
    runtime: Runtime
    files: FileChanges

    def write(
        self,
        merged: MergeReport | None,
        dry_run: bool,
        allow_code: bool,
        side_files: SideFileOptions,
    ) -> ApplyReport:
        """Check everything, and write the copy unless ``dry_run``."""
        patch, model, target = self.patch, self.model, self.target
        try:
            self.check_source()
            code = code_to_write(patch, model, target, self.files)
            if not allow_code:
                refuse_code(patch.path, code)
            report = self.report(dry_run, merged, code)
            check_space(self.out, report.nbytes)
            if merged and not dry_run:
                report = replace(report, merged=self.merge(merged))
            elif not dry_run:
                with self.staged() as staged:
                    rewrite(patch, model, staged.write_words, target, self.runtime)
            if not dry_run and any(one.reason != SCORES for one in report.left_aside):
                note(f"copy what was left aside to {self.out} yourself where the model needs it")
        except OtherSideError as error:
            raise _explain(patch, model, target, side_files, self.runtime) from error
        note_left_alone(model.path, report.left_alone)
        return report

    def check_source(self) -> None:
        """Refuse a model that is not on the source side, by its tensors' names and its files.

        Raises:
            OtherSideError: the whole model has to be read to say what it is, or its side files are
                refused.
            WrongBaseError: naming the first tensor or file that is on neither side.
        """
        source, files = OTHER[self.target], self.files
        if not self.patch.index.keeps_tensors and find_side(self.patch, self.model) != source:
            raise OtherSideError("its tensors")
        match_tensors(self.patch, self.model, source)
        if not files.has_layout_of(source):
            raise OtherSideError("its layout")
        if not files.weights_tell and files.side_with(None) == self.target:
            raise OtherSideError("its files")
        if any(one.refused for one in files.apart(source)):
            raise OtherSideError("its side files")
        files.check()
        refuse_copies(self.model, files.headers(self.target))

    @contextmanager
    def staged(self) -> Iterator[CheckpointCopy]:
        """The copy to write; rank 0 creates its files and the other ranks write into them."""
        ranks, files = self.runtime.ranks, self.files
        stage = staged_folder if self.model.is_folder else staged_file
        headers = files.headers(self.target)
        try:
            with staged_by_first(ranks, stage, self.out) as staging, ExitStack() as copies:
                if ranks.rank:
                    ranks.gather("files")
                    yield copies.enter_context(JoinedCopy(self.model, staging, headers))
                    return
                copy = copies.enter_context(CheckpointCopy(self.model, staging, headers))
                self._check_headers(copy)
                copy.copy_side_files(but=frozenset(one.name for one in files.changes(self.target)))
                for file, _, content in files.side_files(self.target):
                    copy.write_side_file(file.name, content)
                ranks.gather("files")
                yield copy
        except HeaderError as error:
            raise PatchFormatError(
                f"{self.patch.path}: {error}; fetch or build it again"
            ) from error

    def _check_headers(self, copy: CheckpointCopy) -> None:
        records = self.patch.index.tensors_on(self.target)
        listed = {name: (one.dtype, one.shape_on(self.target)) for name, one in records.items()}
        for name in [*copy.tensors, *records]:
            tensor = copy.tensors.get(name)
            if not tensor or (tensor.dtype, tensor.shape) != listed.get(name):
                raise PatchFormatError(
                    f"{self.patch.path}: the headers that it has for the {self.target}'s shards "
                    f"and its index do not agree on tensor {name!r}; fetch or build it again"
                )

    def merge(self, merged: MergeReport) -> MergeReport:
        """Write the copy of an additive patch."""
        scales, descendant = tuple(merged.scales.values()), merged.onto_descendant
        try:
            with self.staged() as copy:
                names = merge(
                    self.patch, self.model, copy.write_words, scales, descendant, self.runtime
                )
        except WrongBaseError as error:
            raise WrongBaseError(
                f"{error}. If it was tuned further from that base, --onto-descendant takes it"
            ) from error
        return replace(merged, differing_tensors=len(names), first_differing=tuple(names[:5]))

    def report(
        self, dry_run: bool, merged: MergeReport | None, code: tuple[CodeFile, ...]
    ) -> ApplyReport:
        """What the copy will be."""
        model, index, target = self.model, self.patch.index, self.target
        copied, left_out = model.side_files()
        headers = {shard.name: shard.data_start for shard in model.shards.values()}
        side_files = {path.as_posix() for path in copied}
        for file in index.files:
            if file.is_header:
                name = file.name if model.is_folder else next(iter(model.shards))
                headers.pop(name, None)
                headers |= {name: file.size_on(target)} if file.on(target) else {}
        written = self.files.changes(target)
        side_files -= {one.name for one in written}
        side_files |= {one.name for one in written if one.change != "removed"}
        tensors = index.tensors_on(target).values()
        changed_tensors, changed_words = index.changes_on(target)
        data_bytes = sum(t.words_on(target) * t.dtype.word_bytes for t in tensors)
        data_bytes += sum(one.nbytes for one in model.copies.shadowed)
        return ApplyReport(
            model=model.path,
            out=self.out,
            in_place=False,
            dry_run=dry_run,
            files=tuple(self.out / name if model.is_folder else self.out for name in headers),
            nbytes=sum(headers.values()) + data_bytes,
            side_files=len(side_files),
            left_out=tuple(left_out),
            left_aside=model.left_aside,
            tensors=len(tensors),
            changed_tensors=changed_tensors,
            changed_words=changed_words,
            written=written,
            left_alone=self.files.apart(OTHER[target]),
            code=code,
            name_notes=names_of_copy(self.patch, {*headers, *side_files}, target),
            merged=merged,
        )


def _explain(
    patch: Patch, model: Checkpoint, target: Side, side_files: SideFileOptions, runtime: Runtime
) -> PatchcError:
    """Say what a model is that was not taken: first by its weights, then by its side files."""
    found = find_state(patch, model, runtime, side_files, OTHER[target])
    if found.side is None:
        chunks = found.chunks
        return PartlyPatchedError(
            f"{model.path} is partly patched: {chunks['result']} chunks hold the patch and "
            f"{chunks['base']} do not; where a run in place was interrupted, run it "
            "again, else start again from an intact copy"
        )
    if found.side != target and (
        refused := refusal(patch.path, model.path, found.side, found.apart)
    ):
        return refused
    others = f"; side files that differ: {named(found.apart)}" if found.apart else ""
    if target == "base":
        return NotPatchedError(
            f"{model.path} does not hold {patch.path}: it is the base already; nothing to revert"
            f"{others}"
        )
    return AlreadyPatchedError(
        f"{model.path} already holds {patch.path}; there is nothing to apply{others}"
    )
