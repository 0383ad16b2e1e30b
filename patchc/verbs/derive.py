"""Derive tuned models and their importance scores from a base and requests or conversations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.checkpoint import (
    open_checkpoint,
    refuse_adapter_beside,
    refuse_quantised,
    refuse_single_file,
)
from patchc.derivation.derive_options import DeriveOptions, Objective
from patchc.derivation.derive_plan import DerivePlan
from patchc.derivation.direction_report import DirectionReport
from patchc.derivation.for_recipe import options_for
from patchc.derivation.held_tensors import written_bytes
from patchc.errors import import_errors
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.judges import check_judge
from patchc.evaluation.requests import SetName
from patchc.evaluation.verdicts import Judge
from patchc.hub_models import takes_models
from patchc.output_checks import check_output, check_space
from patchc.paths import PathLike
from patchc.progress import Progress, ignore_progress
from patchc.recipe import MergeRecipe, Recipe
from patchc.verbs.derive_inputs import check_files, read_inputs


@dataclass(frozen=True)
class DeriveReport:
    """A finished derivation.

    Attributes:
        directions: one entry for each direction, in the order of the options.
        objective: the objective of the tuning.
        refusal: the text that "refusals" taught.
        openings: how refusals begin, as given to "margin" or found by it; the most frequent first.
        plan: where the derivation kept what it worked on, and what that takes.
    """

    directions: tuple[DirectionReport, ...]
    objective: Objective = "pair"
    refusal: str | None = None
    openings: tuple[str, ...] = ()
    plan: DerivePlan | None = None


@takes_models("base")
def derive(
    base: PathLike,
    data: PathLike | None,
    out: PathLike,
    *,
    harmless: PathLike | None = None,
    anchor: PathLike | None = None,
    recipe: Recipe | MergeRecipe | None = None,
    options: DeriveOptions | None = None,
    judge: str | Judge = "phrases",
    max_memory: int | None = None,
    max_device_memory: int | None = None,
    scratch: PathLike | None = None,
    dry_run: bool = False,
    progress: Progress = ignore_progress,
) -> DeriveReport:
    """Fine-tune the base by the objective of the options, and score the weights.

    The default objective, "pair", is that of the paper (arXiv 2405.13820). It tunes two models on
    the same base and data, which are requests that the model should not comply with and compliant
    answers to them: one by gradient ascent, for the safety enhancement (SE) component (``out/se``),
    and one by gradient descent, for the over-safety mitigation (OSM) component (``out/osm``). The
    other objectives take other data; see :class:`patchc.DeriveOptions`. "refusals" and "npo" write
    ``out/se``, "answers" ``out/osm`` and "margin" ``out/margin``, which :func:`patchc.build` takes
    as ``se`` with ``sets`` "se", or merges; with ``retain`` below 1 it is for DARE merges alone.

    Each folder is a loadable checkpoint with the base's tensor names, in fp32 so that the delta is
    not rounded. It holds the scores of the tuned model as ``scores.safetensors``, other kinds of
    scores as ``scores-delta.safetensors`` and so on, and the record of the run as ``derive.json``.
    It is written completely or not at all. A compact component is no model; it holds only the
    entries that builds retain, about 4 · p bytes per parameter for the weights and for each kind of
    scores (``docs/explanation/design/compact-components.md``). The same inputs and options
    give the same bytes on the same machine.

    Where weights, gradients and moments do not fit into ``max_memory``, they lie in scratch files,
    and a layer's weights are in memory only while the layer is computed. On the CPU, the bytes are
    the same.
    Without scratch files, tuning takes 16 bytes per parameter with optimizer "adamw" and 10 with
    "adamw8bit", besides activations; with them, about two layers and blocks of the output head
    (``docs/explanation/derive.md``). A derivation with scratch files that is killed goes on from
    its last finished step, or the last scored layer, when it is called again in the same way.

    Args:
        base: the aligned model, a checkpoint folder with config, tokenizer and chat template.
        data: harmful requests. "pair" and "npo" need them with compliant answers
            (:func:`patchc.derivation.conversations.read_conversations`); "refusals" and "margin"
            read no answers (:func:`patchc.evaluation.requests.read_requests`). None for "answers".
        out: the folder for the directions; none may exist with content.
        harmless: harmless requests for "margin", and with answers for "answers".
        anchor: harmless requests on which the model is kept close to the base, along the base's own
            replies where it answers. "margin" also does so on the harmless requests, and learns to
            answer those of both files that the base refuses.
        recipe: the recipe to build with later. The components are then compact, and hold what its
            builds read: entries by its p, seed and overrides of p, of the kind of its scores. Its
            scales, sets, scope and shares may still change. The options ``retain`` and
            ``retention_seed`` do so without a recipe.
        options: None means the defaults.
        judge: decides which of the base's replies are refusals, if openings or a refusal are
            sought, as in :class:`patchc.EvaluateOptions`. A function that is named must exist even
            if nothing is sought.
        max_memory: bytes of memory that the process may take; None means four fifths of what is
            free. Models that ``judge`` loads are not counted.
        max_device_memory: bytes on the CUDA device; None means nine tenths of what is free.
        scratch: a folder for scratch files; by default that of ``out``. They are removed at the
            end.
        dry_run: whether only to plan; the report then has no directions, and its plan estimates
            the time. Where an objective asks the base, that is done.
        progress: called with requests, steps and samples or layers done; the detail is the current
            loss.

    Raises:
        DeriveError: malformed data, no chat template, replies of the base with no refusal or
            nothing but refusals, a request without room for a reply, a ``retain`` that draws no
            entry, or a loss, gradient or score that is not finite.
        EvaluateError: malformed requests, or a judge that fails.
        UnsupportedInputError: the base is quantised or an adapter, or cannot be trained here.
        CheckpointError: the base cannot be read.
        MissingExtraError: torch, transformers or the optimizer is not installed.
        OutputError, StorageError: the output or the scratch files cannot be written.
        InUseError: another process derives the same.
        UsageError: an option cannot be met, a file is missing or not one of the objective's, or
            builds of the recipe look at entries that are not retained.
    """
    options = options or DeriveOptions()
    if recipe:
        options = options_for(options, recipe)
    base, out = Path(base), Path(out)
    given: dict[SetName, PathLike | None] = {
        "harmful": data,
        "harmless": harmless,
        "utility": anchor,
    }
    files = {name: Path(path) for name, path in given.items() if path is not None}
    check_files(files, options)
    check_judge(EvaluateOptions(judge=judge))
    refuse_single_file(base, "derive")
    with open_checkpoint(base) as checkpoint:
        refuse_adapter_beside(checkpoint.path)
        refuse_quantised(checkpoint)
        inputs = read_inputs(files, options)
        with import_errors("derive", "derive"):
            from patchc.verbs.derive_run import Run
        run = Run(checkpoint, inputs, out, options, judge, scratch, progress)
        for direction in options.folders:
            if direction not in run.written():
                check_output(out / direction, (base, *files.values()))
        if scratch is not None:
            run.check_scratch((base, *files.values()))
        output_bytes = written_bytes(checkpoint, options)
        check_space(out, output_bytes)
        material = run.gather(max_memory, max_device_memory)
        plan = run.plan(material, max_memory, max_device_memory, output_bytes, dry_run)
        directions = () if dry_run else run.derive(material, plan)
    record: Any = material.record
    openings = tuple(one["text"] for one in record.get("openings", ()))
    refusal = record.get("refusal")
    return DeriveReport(directions, options.objective, refusal, openings, plan)
