"""What apply and revert share: a checked copy of a model in its other state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from patchc.checkpoint import Checkpoint, CheckpointCopy, HeaderError, JoinedCopy, open_checkpoint
from patchc.errors import (
    AlreadyPatchedError,
    NotPatchedError,
    OutputError,
    PartlyPatchedError,
    PatchcError,
    PatchFormatError,
    WrongBaseError,
)
from patchc.files import check_output, check_space, staged_file, staged_folder
from patchc.formats import Patch, open_patch
from patchc.patching.merge_options import MergeOptions, MergeReport, irreversible, plan_merge
from patchc.patching.model_state import find_state
from patchc.patching.rewrite import OtherStateError, merge, rewrite
from patchc.patching.side_files import FileChanges
from patchc.patching.states import find_side, match_tensors
from patchc.progress import Progress
from patchc.runtime.device import Device, check_device, open_device
from patchc.runtime.device_pool import HOST_BYTES, DevicePool
from patchc.runtime.memory import threads_to_patch
from patchc.runtime.ranks import ALONE, Ranks, staged_by_first
from patchc.runtime.workers import Workers
from patchc.sides import OTHER, Side

_DEVICE_WORD_BYTES = 32  # a word, and for two components its position, its delta, what was there


@dataclass(frozen=True)
class CopyReport:
    """What was written, or with ``dry_run`` what would be.

    Attributes:
        out: the output folder or file.
        files: safetensors files written.
        nbytes: their size in bytes.
        side_files: other files: copied from the input folder, or written as the patch says.
        left_out: weight files of the input folder that are not part of the checkpoint and were not
            copied, because they hold weights that the patch does not change.
        tensors: tensors in the written model.
        changed_tensors: tensors that the patch changes.
        changed_words: words that it changes.
        dry_run: nothing was written, and the model's contents were not compared.
        merged: how an additive patch was merged; None for exact steps.
    """

    out: Path
    files: int
    nbytes: int
    side_files: int
    left_out: tuple[Path, ...]
    tensors: int
    changed_tensors: int
    changed_words: int
    dry_run: bool
    merged: MergeReport | None = None


def write_patched_copy(
    patch_path: str | os.PathLike[str],
    model_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    revert: bool,
    options: MergeOptions | None = None,
    dry_run: bool,
    threads: int | None,
    max_memory: int | None,
    device: Device,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> CopyReport:
    """Write the model's other state to ``out``; :func:`patchc.apply` states the contract."""
    out = Path(out)
    source: Side = "result" if revert else "base"
    with open_patch(patch_path) as patch, open_checkpoint(model_path) as model:
        if revert and patch.additive:
            raise irreversible(patch)
        merged = plan_merge(patch, options or MergeOptions())
        check_output(out, (model.path, patch.path))
        if out.is_dir() and not model.is_folder:
            raise OutputError(f"output {out} is a folder and the model is a file; name a file")
        staging = _open_staging(device, merged)
        beside = HOST_BYTES if staging else 0
        threads = threads_to_patch(patch, threads, max_memory, beside, ranks.neighbours)
        if staging:
            threads = min(threads, staging.most_threads(_DEVICE_WORD_BYTES * patch.chunk_words))
        with Workers(threads, ranks) as workers:
            files = FileChanges(patch, model)
            try:
                _check_side(patch, model, files, source)
                report = _report(patch, model, out, dry_run, merged, OTHER[source])
                check_space(out, report.nbytes)
                if dry_run:
                    return report
                if merged:
                    merged = _merge(patch, model, out, files, merged, workers, progress, staging)
                    return replace(report, merged=merged)
                with _staged(patch, model, out, files, OTHER[source], ranks) as copy:
                    rewrite(patch, model, copy.write_words, revert, workers, progress)
            except OtherStateError as error:
                raise _explain(patch, model, revert, workers, progress) from error
        return report


def _open_staging(device: Device, merged: MergeReport | None) -> DevicePool | None:
    """The device for additive values; exact steps are the CPU's on any device.

    To add a step takes the CPU less time than the word's way to a device and back would.
    """
    if merged:
        return open_device(device)
    check_device(device)
    return None


def _check_side(patch: Patch, model: Checkpoint, files: FileChanges, side: Side) -> None:
    """Refuse a model whose tensors and changing files are not those of ``side``.

    Raises:
        OtherStateError: they are those of the other side, some of them at least.
        WrongBaseError: naming the first that is on neither side.
    """
    if not patch.index.keeps_tensors and find_side(patch, model) != side:
        raise OtherStateError("its tensors")
    match_tensors(patch, model, side)
    for name, found in files.states().items():
        if found != side:
            raise OtherStateError(name)
    files.check()


@contextmanager
def _staged(
    patch: Patch, model: Checkpoint, out: Path, files: FileChanges, target: Side, ranks: Ranks
) -> Iterator[CheckpointCopy]:
    """The copy to write; rank 0 has created its files, the others write into them."""
    stage = staged_folder if model.is_folder else staged_file
    headers = files.headers(target)
    try:
        with staged_by_first(ranks, stage, out) as staging, ExitStack() as copies:
            if ranks.rank:
                ranks.gather("files")
                yield copies.enter_context(JoinedCopy(model, staging, headers))
                return
            copy = copies.enter_context(CheckpointCopy(model, staging, headers))
            _check_layout(patch, copy, target)
            copy.copy_side_files(but=files.names)
            for name, content in files.side_files(target):
                copy.write_side_file(name, content)
            ranks.gather("files")
            yield copy
    except HeaderError as error:
        raise PatchFormatError(f"{patch.path}: {error}; fetch or build it again") from error


def _check_layout(patch: Patch, copy: CheckpointCopy, target: Side) -> None:
    records = patch.index.tensors_on(target)
    for name in [*copy.tensors, *records]:
        tensor, record = copy.tensors.get(name), records.get(name)
        if (
            not tensor
            or not record
            or tensor.dtype != record.dtype
            or (tensor.shape != record.shape_on(target))
        ):
            raise PatchFormatError(
                f"{patch.path}: the headers that it has for the {target}'s shards and its index "
                f"do not agree on tensor {name!r}; fetch or build it again"
            )


def _merge(
    patch: Patch,
    model: Checkpoint,
    out: Path,
    files: FileChanges,
    merged: MergeReport,
    workers: Workers,
    progress: Progress,
    staging: DevicePool | None,
) -> MergeReport:
    scales, descendant = tuple(merged.scales.values()), merged.onto_descendant
    try:
        with _staged(patch, model, out, files, "result", workers.ranks) as copy:
            names = merge(
                patch, model, copy.write_words, scales, descendant, workers, progress, staging
            )
    except WrongBaseError as error:
        raise WrongBaseError(
            f"{error}. If it was tuned further from that base, --onto-descendant takes it"
        ) from error
    return merged.with_differing(names)


def _explain(
    patch: Patch, model: Checkpoint, revert: bool, workers: Workers, progress: Progress
) -> PatchcError:
    found = find_state(patch, model, workers, progress)
    if found.name == "partly patched":
        return PartlyPatchedError(
            f"{model.path} is partly patched: {found.chunks_at_result} chunks hold the patch and "
            f"{found.chunks_at_base} do not; of the files beside them, {found.files_at_result} do "
            f"and {found.files_at_base} do not; where a run in place was interrupted, run it "
            "again, else start again from an intact copy"
        )
    if revert:
        return NotPatchedError(
            f"{model.path} does not hold {patch.path}: it is the base already; nothing to revert"
        )
    return AlreadyPatchedError(
        f"{model.path} already holds {patch.path}; there is nothing to apply"
    )


def _report(
    patch: Patch,
    model: Checkpoint,
    out: Path,
    dry_run: bool,
    merged: MergeReport | None,
    target: Side,
) -> CopyReport:
    kept, left = model.side_files()
    headers = {shard.name: shard.data_start for shard in model.shards.values()}
    side_files = {path.as_posix() for path in kept}
    for file in patch.index.files:
        if file.is_header:
            name = file.name if model.is_folder else next(iter(model.shards))
            headers.pop(name, None)
            headers |= {name: file.size_on(target)} if file.on(target) else {}
        else:
            side_files.discard(file.name)
            side_files |= {file.name} if file.on(target) else set()
    tensors = patch.index.tensors_on(target).values()
    return CopyReport(
        out=out,
        files=len(headers),
        nbytes=sum(headers.values())
        + sum(t.words_on(target) * t.dtype.word_bytes for t in tensors),
        side_files=len(side_files),
        left_out=tuple(left),
        tensors=len(tensors),
        changed_tensors=sum(bool(record.chunks) for record in patch.index.records),
        changed_words=int(patch.index.entries.sum()),
        dry_run=dry_run,
        merged=merged,
    )
