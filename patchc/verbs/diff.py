"""Make a lossless patch from two checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchc.checkpoint import Checkpoint, open_checkpoint
from patchc.checkpoint.files_beside import take_all
from patchc.checkpoint.left_aside import left_aside_of
from patchc.chunks import Chunk
from patchc.compiler.pairing import pair_tensors
from patchc.compiler.shadowed_copies import refuse_other_copies
from patchc.compiler.steps import Codec, ReadChanges, check_patch_output, compile_steps
from patchc.dtypes import Words
from patchc.errors import MismatchError
from patchc.formats import EncodedFile, TensorPair, open_patch
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.hub_models import takes_models
from patchc.notes import note
from patchc.patching.code_files import code_to_write
from patchc.patching.model_of_patch import BESIDE
from patchc.patching.side_files import changed_files
from patchc.patching.tensor_sides import read_side, unchanged_pairs
from patchc.progress import Progress, ignore_progress
from patchc.recipe.renames import Renames
from patchc.recipe.suggested_renames import as_options, rename_advice, suggest_renames
from patchc.runtime.memory import need_to_compare
from patchc.runtime.ranks import shared_ranks
from patchc.runtime.runtime import Runtime
from patchc.verbs.patch_reports import DiffReport, facts_of
from patchc.verbs.provenance import tool
from patchc.verbs.updates import describe_update


@takes_models("base", "tuned")
def diff(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    weights_only: bool = False,
    rename: str | Sequence[str] = (),
    threads: int | None = None,
    max_memory: int | None = None,
    chunk_bits: int = DEFAULT_CHUNK_BITS,
    codec: Codec = "auto",
    progress: Progress = ignore_progress,
) -> DiffReport:
    """Write a patch that takes ``base`` to ``tuned``: every word that differs, any dtype.

    Tensors may be added, removed or renamed, and may change shape or dtype. Shards, their headers
    and side files may differ. Safetensors files beside the model's own, such as a draft head, are
    compared too, if no other file of their folder holds their tensors. The report names weight
    files that are not carried.

    Args:
        base: a checkpoint folder or safetensors file.
        tuned: another of the same kind.
        out: the patch file to write; must not exist.
        weights_only: compare only tensors, which must have equal names, dtypes and shapes. Shards
            may differ; the patched model keeps its own. Implied for a folder and a file.
        rename: rules ``OLD=NEW``, in order: what the base calls OLD, the tuned model calls NEW. OLD
            is a regular expression of RE2, of which the first match in a name is replaced; ``\\1``
            to ``\\9`` in NEW are its groups. A renamed tensor then costs its changes alone, once
            for each way. Whoever applies the patch needs no rules. With ``weights_only`` the
            patched model keeps the base's names.
        threads: worker threads; None means one per core.
        max_memory: bytes that the process may take, to within a tenth; it limits the threads. None
            means 300 MB.
        chunk_bits: log2 of the words in a chunk of the patch's grid.
        codec: "auto" codes each chunk in the shorter way; "rice" so that the patch decodes alone.
        progress: called with the parameters done.

    Raises:
        MismatchError: with ``weights_only``, the two do not have the same tensors; names the first
            that differs.
        CheckpointError, UnsupportedInputError: an input cannot be read, or a file that differs is
            larger than the format allows.
        OutputError, StorageError: the patch cannot be written.
        UsageError: ``chunk_bits``, ``codec``, ``threads`` or ``max_memory`` are out of range; or a
            rule is malformed, or does not fit the names of both.
    """
    renames = Renames(rename)
    folders = all(os.path.isdir(path) for path in (base, tuned))  # noqa: PTH112 (any path)
    beside = take_all if folders and not weights_only else None
    runtime = Runtime(threads, max_memory, ranks=shared_ranks(), progress=progress)
    with (
        open_checkpoint(base, beside=beside) as base_model,
        open_checkpoint(tuned, beside=beside) as tuned_model,
        runtime,
    ):
        check_patch_output(Path(out), (base_model.path, tuned_model.path), chunk_bits)
        runtime.fit(need_to_compare(base_model, 1 << chunk_bits))
        result, suggested = tuned_model, tuple[str, ...]()
        if weights_only or base_model.is_folder != tuned_model.is_folder:
            names = renames.of(base_model)
            names.check_found([tuned_model])
            result = names.view(tuned_model)
            _match(base_model, result)
            pairs, files = unchanged_pairs(base_model), iter(list[EncodedFile]())
        else:
            refuse_other_copies(base_model, tuned_model)
            pairs = pair_tensors(base_model, tuned_model, runtime, renames)
            files = changed_files(base_model, tuned_model)
            suggested = () if rename else _suggest(pairs, base_model, tuned_model)

        def read(pair: TensorPair, chunk: Chunk) -> tuple[Words, Words]:
            before = read_side(base_model, pair, chunk, "base", runtime.buffers.base)
            return before, read_side(result, pair, chunk, "result", runtime.buffers.tuned)

        both = (base_model, tuned_model)
        carried = sorted({name for model in both for name in model.shards_beside})
        provenance = {"kind": "diff", "tool": tool(), **renames.to_json()}
        provenance |= {BESIDE: carried} if carried else {}
        source = ReadChanges(read, provenance, (base_model, tuned_model))
        patch = compile_steps(
            Path(out), pairs, source, 1 << chunk_bits, "diff", runtime, codec, files=files
        )
        contents = {} if runtime.ranks.rank else _contents(Path(out), base_model, tuned_model)
        return DiffReport(
            **facts_of(Path(out), patch),
            **contents,
            suggested_renames=suggested,
            beside=tuple(carried),
            left_aside=left_aside_of(both),
        )


def _suggest(pairs: Sequence[TensorPair], base: Checkpoint, tuned: Checkpoint) -> tuple[str, ...]:
    """Rules for tensors that seem renamed and changed, which a note gives as well."""
    missing = [base.tensors[p.name] for p in pairs if p.only == "base" and p.reference is None]
    rules = suggest_renames(missing, base, tuned)
    if rules:
        note(
            f"most tensors of {base.path} seem renamed and changed in {tuned.path}, and are in the "
            "patch as a whole; for a smaller one (which, with --weights-only too, keeps the names "
            f"of {base.path}) add {as_options(rules)}"
        )
    return rules


def _contents(out: Path, base: Checkpoint, tuned: Checkpoint) -> dict[str, Any]:
    """What the patch carries, and which code its receivers have to allow."""
    with open_patch(out) as patch:
        update = describe_update(patch.index)
        if all(file.is_header for file in patch.index.files):
            return {"update": update}
        code = (*code_to_write(patch, base, "result"), *code_to_write(patch, tuned, "base"))
        return {"update": update, "code": code}


def _match(base: Checkpoint, tuned: Checkpoint) -> None:
    for name, tensor in base.tensors.items():
        twin = tuned.tensors.get(name)
        if twin is None:
            raise MismatchError(
                f"tensor {name!r} of {base.path} is missing from {tuned.path}"
                f"{rename_advice(base, tuned)}"
            )
        if (twin.dtype, twin.shape) != (tensor.dtype, tensor.shape):
            raise MismatchError(
                f"tensor {name!r} is {tensor.dtype.name} {list(tensor.shape)} in {base.path} and "
                f"{twin.dtype.name} {list(twin.shape)} in {tuned.path}; with --weights-only, and "
                "between a folder and a file, they must be equal"
            )
    for name in tuned.tensors:
        if name not in base.tensors:
            raise MismatchError(f"tensor {name!r} of {tuned.path} is missing from {base.path}")
