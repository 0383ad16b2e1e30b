"""Check whether a patch is intact, and what state a model is in."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

from patchc.checkpoint import Checkpoint
from patchc.checkpoint.left_aside import LeftAside
from patchc.errors import WrongBaseError
from patchc.formats import Patch, TensorRecord, open_patch
from patchc.hub_models import takes_models
from patchc.patching.additive_merge import EntryCount
from patchc.patching.code_files import NO_CODE, CodeReport, code_in_patch, code_to_write
from patchc.patching.foreign_names import NameNote, names_of_patch
from patchc.patching.in_place_journal import interrupted, left_journal
from patchc.patching.left_alone import CARDS_ALONE, SideFile, SideFileOptions
from patchc.patching.model_of_patch import open_for_patch
from patchc.patching.states import find_state, find_torn_state
from patchc.patching.torn_chunks import MAY_BE_TORN
from patchc.patching.transition import UnknownChunkError
from patchc.progress import Progress, ignore_progress
from patchc.runtime.memory import need_to_patch
from patchc.runtime.runtime import Runtime
from patchc.sides import Side
from patchc.signing.trust import ANYBODY, PolicyAnswer, Trust, ask_policies

State = Literal["intact", "base", "patched", "partly patched", "neither", "not the base"]
SignatureAnswer = Literal["none", "not checked", "as required", "not as required"]
Identity = Literal["not asked", "yes", "no", "partly", "not promised"]


@dataclass(frozen=True)
class VerifyReport:
    """The answers of :func:`verify`.

    Four questions have an answer each: ``integrity`` (is the file whole), ``signature`` (is it
    signed as required), ``base`` and ``result`` (is the model what the patch leads from, or to).

    Attributes:
        state: "intact" if no model was given: the patch file is whole and every body decodes.
            Otherwise the patch is intact too, and the state is that of the model's weights; of its
            side files where the patch changes nothing else. An additive patch cannot be recognised
            in a model, which is then "base" or "not the base".
        root: the patch's root digest, in hexadecimal.
        chunks_at_base, chunks_at_result: changing chunks of the model on each side; torn ones count
            on the side that they will be restored to.
        chunks_torn: chunks that an interrupted run in place left torn, and that its journal brings
            back.
        journal: whether the journal of such a run, with this patch, is beside the model.
        files_at_base, files_at_result: changing files of the model on each side, headers included.
        side_files: the changing side files that are not as the state says, and what they are. Those
            that are ``refused`` keep ``apply`` and ``revert`` from taking the model.
        difference: for an unknown model, the first tensor or file that differs, and how.
        integrity: "intact"; a patch that is not raises an error.
        signature: "none": the patch is not signed, and nothing asks for it; "not checked": it is
            signed, and there are no trusted keys to check that with; "as required" and "not as
            required": what ``policies`` say.
        policies: what asks for signatures, and what it finds; empty where nothing does.
        code: the files that the patch brings and that a loader or an interpreter would run; given
            its base or the patched model, those that the next apply or revert would write.
        name_notes: names in the patch that some systems cannot have, or not tell apart.
        left_aside: weight files in the model's folder that are not the model, and why.
        base: whether the model is the patch's base, by what the state tells of.
        result: whether it is the patched model, likewise; "not promised" by an additive patch.
    """

    state: State
    root: str
    chunks_at_base: int = 0
    chunks_at_result: int = 0
    chunks_torn: int = 0
    journal: bool = False
    files_at_base: int = 0
    files_at_result: int = 0
    side_files: tuple[SideFile, ...] = ()
    difference: str = ""
    integrity: Literal["intact"] = "intact"
    signature: SignatureAnswer = "none"
    policies: tuple[PolicyAnswer, ...] = ()
    code: CodeReport = NO_CODE
    name_notes: tuple[NameNote, ...] = ()
    left_aside: tuple[LeftAside, ...] = ()
    base: Identity = "not asked"
    result: Identity = "not asked"


@takes_models("model")
def verify(
    patch: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    trust: Trust = ANYBODY,
    keep_side_files: bool = False,
    strict_side_files: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    progress: Progress = ignore_progress,
) -> VerifyReport:
    """Check a patch file in full, its signatures, and the state of a model if one is given.

    With a patch that changes nothing, the state is "base". A signature that is not valid, or
    missing, is told in the report, and raises nothing.

    Args:
        patch: a patch file.
        model: a checkpoint folder or a safetensors file; None checks the patch alone.
        trust: who must have signed the patch, beside what the policies in force ask for; see
            :func:`patchc.apply`.
        keep_side_files, strict_side_files: which side files that differ are refused; see
            :func:`patchc.apply`.
        threads: worker threads; None means one per core.
        max_memory: bytes that the process may take, to within a tenth; it limits the threads. None
            means 300 MB.
        progress: called with the chunks and bytes done.

    Raises:
        UsageError: signatures are to be checked, and no key is trusted; or side files shall be kept
            and refused.
        SignatureError: a policy, a trusted key or a detached signature cannot be used.
        MissingExtraError: signatures are to be checked, and the extra ``sign`` is not installed.
        PatchFormatError, UnsupportedPatchError: the patch is damaged or not readable.
        CheckpointError, UnsupportedInputError: the model cannot be read.
        ResultMismatchError: the patch's own digests contradict each other.
    """
    side_files = SideFileOptions(keep_side_files, strict_side_files)
    with open_patch(patch) as opened, Runtime(threads, max_memory, progress=progress) as runtime:
        runtime.fit(need_to_patch(opened))
        signature: SignatureAnswer = "not checked" if opened.signatures else "none"
        policies = ask_policies(opened, trust)
        if policies:
            met = all(one.signed.satisfied for one in policies)
            signature = "as required" if met else "not as required"
        _check_bodies(opened, runtime)
        report = VerifyReport("intact", opened.root.hex())
        code = code_in_patch(opened)
        if model is not None:
            with open_for_patch(model, opened) as checkpoint:
                report = find_report(opened, checkpoint, runtime, side_files)
                report = _with_identities(report, opened)
                report = replace(report, left_aside=checkpoint.left_aside)
                code = _code_for(opened, checkpoint, report.state) or code
                checkpoint.check_unchanged()
        notes = names_of_patch(opened)
        return replace(report, signature=signature, policies=policies, code=code, name_notes=notes)


def _code_for(patch: Patch, model: Checkpoint, state: State) -> CodeReport | None:
    targets: dict[State, Side] = {"base": "result", "patched": "base"}
    if state not in targets:
        return None
    return CodeReport(code_to_write(patch, model, targets[state]))


def _with_identities(report: VerifyReport, patch: Patch) -> VerifyReport:
    sides: dict[State, tuple[Identity, Identity]] = {
        "base": ("yes", "no"),
        "patched": ("no", "yes"),
        "partly patched": ("partly", "partly"),
    }
    base, result = sides.get(report.state, ("no", "no"))
    return replace(report, base=base, result="not promised" if patch.additive else result)


def find_report(
    patch: Patch, model: Checkpoint, runtime: Runtime, side_files: SideFileOptions = CARDS_ALONE
) -> VerifyReport:
    """Read a model and describe its state; the bodies of chunks on the base are not all decoded.

    Raises:
        CheckpointError, ResultMismatchError, UnsupportedInputError: as :func:`verify`.
    """
    root, torn = patch.root.hex(), 0
    with left_journal(model.path) as left:
        own = left if left and left.group.root == root else None
        try:
            found = find_state(patch, model, runtime, side_files)
        except WrongBaseError as error:
            try:
                if own is None:
                    raise
                found, torn = find_torn_state(patch, model, own, runtime, side_files)
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
        side_files=found.apart,
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
