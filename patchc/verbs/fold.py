"""Fold consecutive patches into one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from patchc.checkpoint.left_aside import listed as listed_names
from patchc.compiler.chain_check import check_chain
from patchc.compiler.folding import fold_onto, fold_patches
from patchc.compiler.steps import check_patch_output
from patchc.errors import UnsupportedInputError, UsageError
from patchc.formats import Patch, open_patch
from patchc.hub_models import takes_models
from patchc.patching.file_changes import is_layout
from patchc.patching.model_of_patch import BESIDE, names_beside, open_for_patch
from patchc.paths import PathLike, listed
from patchc.progress import Progress, ignore_progress
from patchc.runtime.runtime import Runtime
from patchc.signing.trust import ANYBODY, Trust, demand_trust
from patchc.verbs.patch_reports import FoldReport, facts_of
from patchc.verbs.provenance import folded_patches, tool


@takes_models("base")
def fold(
    patches: Sequence[PathLike],
    *,
    out: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    trust: Trust = ANYBODY,
    progress: Progress = ignore_progress,
) -> FoldReport:
    """Write one patch that takes the first patch's base to the last one's result.

    Steps on the same word are added modulo 2^width, and dropped if they cancel. The outcome can be
    applied and reverted like any other patch, bit for bit. Memory does not grow with the model.

    Args:
        patches: two or more patches of exact steps, in order; the result of each is the base of the
            next.
        out: the patch file to write; must not exist.
        base: the first patch's base, a checkpoint folder or safetensors file. Needed if a body does
            not decode without it, or if a chunk ends as it began and its tensor's digest is in no
            patch. With it, every step is checked against the digests; without it, ``apply`` and
            ``revert`` check them.
        threads: worker threads; None means one per core.
        trust: who must have signed each of the patches; see :func:`patchc.apply`.
        progress: called with the chunks done; with ``base``, with the parameters.

    Raises:
        UsageError: fewer than two patches, or ``base`` is needed.
        MismatchError: a patch does not follow the one before it; names both, and the first tensor
            that differs.
        UnsupportedInputError: an additive patch, or one with a feature that cannot be folded.
        PatchFormatError, UnsupportedPatchError: a patch cannot be read.
        CheckpointError: ``base`` cannot be read.
        WrongBaseError: ``base`` is not the first patch's; names the first tensor that differs.
        ResultMismatchError: steps and digests of a patch contradict each other.
        SignatureError, MissingExtraError: as :func:`patchc.apply`, about a policy.
        OutputError, StorageError: the patch cannot be written.
    """
    paths = listed(patches)
    if len(paths) < 2:
        raise UsageError("fold takes two patches or more; name the one that follows")
    out = Path(out)
    runtime = Runtime(threads, progress=progress)
    with ExitStack() as inputs:
        opened = [inputs.enter_context(open_patch(path)) for path in paths]
        policies = tuple(answer for one in opened for answer in demand_trust(one, trust))
        for one in opened:
            _refuse_features(one)
        check_chain(opened)
        for one in opened:
            if base is None and not one.decodes_alone():
                raise UsageError(
                    f"{one.path} is coded given the words that it applies to; give the base of "
                    "the first patch with --base"
                )
        model = None if base is None else inputs.enter_context(open_for_patch(base, opened[0]))
        read = tuple(one.path for one in (*opened, model) if one)
        check_patch_output(out, read, opened[0].chunk_words.bit_length() - 1)
        metadata = _provenance(opened)
        inputs.enter_context(runtime)
        if model is None:
            patch = fold_patches(out, opened, metadata, runtime)
        else:
            patch = fold_onto(out, model, opened, metadata, runtime)
        roots = tuple(one.root.hex() for one in opened)
        return FoldReport(**facts_of(out, patch), folded=roots, policies=policies)


def _refuse_features(patch: Patch) -> None:
    """Refuse a patch that does more than change the values of tensors by exact steps."""
    if patch.additive:
        raise UnsupportedInputError(
            f"{patch.path} holds additive values, which promise no result to fold; apply the "
            "patches one after the other"
        )
    if patch.features:
        index = patch.index
        # Headers and the index of shards come last: they mostly change with what is named first.
        files = [one.name for one in index.files if not is_layout(one)]
        changed = files + [one.name for one in index.records if not one.is_plain]
        changed += [one.name for one in index.files if is_layout(one)]
        what = f" ({listed_names(list(dict.fromkeys(changed)))})" if changed else ""
        raise UnsupportedInputError(
            f"{patch.path} changes more than the values of tensors{what}, and fold joins those "
            "alone; apply the patches one after the other, or fold patches made with diff "
            "--weights-only"
        )


def _provenance(patches: Sequence[Patch]) -> Mapping[str, Any]:
    folded = [
        link
        for patch in patches
        for link in folded_patches(patch.metadata)
        or [{"root": patch.root.hex(), "result": patch.index.result_digest.hex()}]
    ]
    beside = sorted({*names_beside(patches[0]), *names_beside(patches[-1])})
    more = {BESIDE: beside} if beside else {}
    return {"kind": "fold", "tool": tool(), "folded": folded, **more}
