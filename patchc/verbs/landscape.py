"""Measure how a model replies around its weights, without and with a patch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blake3 import blake3

from patchc.checkpoint import (
    Checkpoint,
    open_checkpoint,
    refuse_adapter_beside,
    refuse_quantised,
    refuse_single_file,
)
from patchc.errors import import_errors
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.judges import check_judge_is_known_by_name, open_judge
from patchc.evaluation.measure import Setup
from patchc.evaluation.requests import read_request_sets
from patchc.evaluation.results import evaluation_digest
from patchc.formats import open_patch
from patchc.hub_models import takes_models
from patchc.landscapes.curves import Landscape
from patchc.landscapes.findings import find_landscape
from patchc.landscapes.landscape_options import LandscapeOptions
from patchc.landscapes.lines import open_lines
from patchc.patching.digest import digest_checkpoint
from patchc.paths import PathLike
from patchc.progress import Progress, ignore_progress
from patchc.runtime.runtime import Runtime
from patchc.signing.trust import ANYBODY, Trust
from patchc.stages import file_digest
from patchc.verbs.apply import apply
from patchc.verbs.patched_models import check_patch, check_signed

SCRATCH = "patchc-landscape-"


@dataclass(frozen=True)
class LandscapeReport(Landscape):
    """What was found around a model, and around the patched one.

    Attributes:
        base_digest, patch_root, judge, seed, requests, curves, planes: as in the base class.
        out: the landscape file.
        data: BLAKE3 of the file of each set, in hexadecimal.
        openings: how the base's refusals begin, for the planes; empty without planes.
    """

    out: Path
    data: Mapping[str, str]
    openings: tuple[str, ...]


@takes_models("model")
def landscape(
    model: PathLike,
    *,
    harmful: PathLike,
    harmless: PathLike,
    out: PathLike,
    utility: PathLike | None = None,
    patch: PathLike | None = None,
    trust: Trust = ANYBODY,
    options: LandscapeOptions | None = None,
    asking: EvaluateOptions | None = None,
    progress: Progress = ignore_progress,
) -> LandscapeReport:
    """Ask a model at places around its weights, and report how far its refusals hold.

    The places lie along random directions, on a grid over two of them, and with a patch on the line
    from the base through the patched model; the patched model is moved along the same directions by
    the same steps. Weights are set tensor by tensor in one loaded model, and set back afterwards.

    Every place is a line of ``out``. The same call continues an interrupted one, and one with more
    points or directions adds to it.

    Args:
        model: a checkpoint folder with config, tokenizer and chat template.
        harmful, harmless, utility: as for :func:`patchc.evaluate`.
        out: the landscape file.
        patch: also look around the patched model. The patch is applied to a copy in the system's
            temporary folder; config and tokenizer are the base's.
        trust: who must have signed ``patch``; see :func:`patchc.apply`.
        options: the places; None means the defaults.
        asking: how to ask and judge; with ``system``, every place is asked without and with it.
        progress: called after each place.

    Raises:
        EvaluateError: bad requests, no chat template, a judge that fails, or a landscape file of
            other inputs.
        DeriveError: planes are asked for and the base refuses nothing, or its refusals begin as
            answers do.
        NumericError: weights are not finite at a place.
        UsageError: an option that cannot be met, or a judge without a name of its own.
        MissingExtraError: torch or transformers is missing.
        CheckpointError, UnsupportedInputError: the model cannot be read, loaded or moved.
        StorageError: ``out`` or the temporary folder cannot be written.
        and, with a patch, what :func:`patchc.apply` raises.
    """
    options, asking = options or LandscapeOptions(), asking or EvaluateOptions()
    check_judge_is_known_by_name(asking)
    if patch is not None:
        check_signed(Path(patch), trust)
    folder = Path(model)
    with open_checkpoint(folder) as opened:
        refuse_single_file(folder, "landscape")
        refuse_adapter_beside(folder)
        refuse_quantised(opened)
    requests = read_request_sets(harmful, harmless, utility, asking.limit)
    files = {"harmful": harmful, "harmless": harmless, "utility": utility}
    data = {name: file_digest(Path(path)) for name, path in files.items() if path is not None}
    judge = open_judge(asking)
    with import_errors("landscape", "derive"):
        from patchc.evaluation.prompts import encode_prompts
        from patchc.landscapes.survey import Survey
    setups = {
        system: Setup(requests, encode_prompts(folder, requests, one), judge, None, one)
        for system, one in _ways(asking).items()
    }
    with ExitStack() as stack:
        base = stack.enter_context(open_checkpoint(folder))
        if patch is not None:
            check_patch(Path(patch), folder, trust, progress)
        inputs = _inputs(base, patch, setups, asking, options.seed)
        lines = stack.enter_context(open_lines(Path(out), inputs))
        open_patched = None
        if patch is not None:
            open_patched = partial(_open_copy, stack, Path(patch), folder, trust, progress)
        survey = Survey(base, open_patched, setups, options, asking, lines, progress)
        openings = survey.run()
        found = find_landscape(inputs, lines.all())
    decode = setups[False].prompts.tokenizer.decode
    begun = dict.fromkeys(tokens for one in openings.values() for tokens in one.sequences)
    shown = tuple(decode(list(tokens)) for tokens in begun)
    return LandscapeReport(**vars(found), out=Path(out), data=data, openings=shown)


def _open_copy(
    stack: ExitStack, patch: Path, folder: Path, trust: Trust, progress: Progress
) -> Checkpoint:
    """Apply a patch to a copy in a temporary folder, for as long as the stack lasts."""
    copy = Path(stack.enter_context(TemporaryDirectory(prefix=SCRATCH))) / "patched"
    apply(patch, folder, out=copy, trust=trust, progress=progress)
    return stack.enter_context(open_checkpoint(copy))


def _ways(asking: EvaluateOptions) -> dict[bool, EvaluateOptions]:
    """Return how requests are asked: without a system message, and with it if there is one."""
    ways = {False: replace(asking, system=None)}
    return ways | {True: asking} if asking.system is not None else ways


def _inputs(
    base: Checkpoint,
    patch: PathLike | None,
    setups: Mapping[bool, Setup],
    asking: EvaluateOptions,
    seed: int,
) -> dict[str, Any]:
    """Collect what every line depends on; not which places are measured."""
    root = None
    if patch is not None:
        with open_patch(patch) as opened:
            root = opened.root.hex()
    with Runtime() as runtime:
        digest = digest_checkpoint(base, runtime).hex()
    requests = setups[False].requests
    prompts = blake3()
    for setup in setups.values():
        for keys in setup.prompts.keys.values():
            prompts.update("".join(keys).encode())
    return {
        "base": digest,
        "patch": root,
        "seed": seed,
        "evaluation": evaluation_digest(requests, asking),
        "prompts": prompts.hexdigest(length=16),
        "counts": {name: len(asked) for name, asked in requests.items()},
        "judge": asking.judge_name,
    }
