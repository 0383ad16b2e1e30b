"""What a fix would do, and what it would take, before anything is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from patchc.checkpoint import open_checkpoint
from patchc.dtypes import MERGEABLE
from patchc.evaluation.requests import SetName
from patchc.fixing.fix_options import FixOptions
from patchc.fixing.job import WORK, Job
from patchc.fixing.split import SetSplit
from patchc.fixing.stages import PATCH, seconds_of
from patchc.formats.container.layout import DEFAULT_CHUNK_BITS
from patchc.recipe import MergeRecipe
from patchc.selection.safepatching.inputs import components_read
from patchc.verbs.build_plan import expected_patch_bytes

_ASKS = ("margin", "refusals")
"""Objectives whose derivation asks the base."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage.

    Attributes:
        name: "split", "derived", "fitted" or "tested".
        kept: whether it is there from the same inputs, and skipped.
        work: what it does, in words and numbers.
        seconds: how long it took the last time in this folder, from whatever inputs; None where it
            never finished there.
    """

    name: str
    kept: bool
    work: str
    seconds: float | None


@dataclass(frozen=True)
class FixPlan:
    """What a fix would do.

    Attributes:
        requests, learned, warnings: as in :class:`patchc.fixing.report.FixReport`.
        stages: in the order in which they are run.
        derived_bytes: size of the derived models with their scores, at most.
        patch_bytes: expected size of the patch.
        copy_bytes: size of the patched copy that the test makes in the system's temporary folder.
    """

    requests: Mapping[SetName, SetSplit]
    learned: Mapping[SetName, int]
    warnings: tuple[str, ...]
    stages: tuple[PlannedStage, ...]
    derived_bytes: int
    patch_bytes: int
    copy_bytes: int


def plan(job: Job) -> FixPlan:
    """Say what a fix would do; nothing is written."""
    learned = count_learned(job)
    seconds = seconds_of(job)
    kept = _kept(job)
    derive = job.options.deriving
    with open_checkpoint(job.base) as checkpoint:
        words = sum(tensor.words for tensor in checkpoint.tensors.values())
        taking = [t for t in checkpoint.tensors.values() if t.dtype.name in MERGEABLE]
        selected = math.ceil(_density(job.options) * sum(tensor.words for tensor in taking))
        patch_bytes = expected_patch_bytes(checkpoint, taking, selected, DEFAULT_CHUNK_BITS)
    return FixPlan(
        requests=job.parts.splits,
        learned=learned,
        warnings=job.warnings,
        stages=tuple(
            PlannedStage(name, kept[name], work, seconds.get(name))
            for name, work in _work(job, learned).items()
        ),
        derived_bytes=4 * words * (1 + len(derive.scores)) * len(derive.folders),
        patch_bytes=patch_bytes,
        copy_bytes=job.nbytes,
    )


def count_learned(job: Job) -> dict[SetName, int]:
    """Of each set, how many development requests are learned from."""
    return {name: sum(marks) for name, marks in job.parts.learned_marks(job.options).items()}


def _kept(job: Job) -> dict[str, bool]:
    stages = job.stages
    patch = job.out / WORK / "fitted" / PATCH
    fitted = stages.done("fitted", job.fitted_inputs())
    return {
        "split": stages.done("split", job.split_inputs()),
        "derived": stages.done("derived", job.derived_inputs()),
        "fitted": fitted,
        "tested": fitted and stages.done("tested", job.tested_inputs(patch)),
    }


def _work(job: Job, learned: Mapping[SetName, int]) -> dict[str, str]:
    options, splits = job.options, job.parts.splits
    fitting, longest = options.fitting, options.asking.max_new_tokens
    development = sum(split.development for split in splits.values())
    tested = sum(split.test for split in splits.values())
    most = (
        f"{fitting.steps} steps"
        if fitting.minutes is None
        else f"{fitting.minutes:g} minutes of steps"
    )
    return {
        "split": f"{development + tested} requests",
        "derived": _derivation(options, learned),
        "fitted": f"at most {most} of {fitting.batch_size} requests; at most "
        f"{(1 + fitting.candidates) * development} replies of {longest} tokens "
        f"(the base and {fitting.candidates} points)",
        "tested": f"{2 * tested} replies of at most {longest} tokens (base and patched)",
    }


def _derivation(options: FixOptions, learned: Mapping[SetName, int]) -> str:
    derive = options.deriving
    examples = learned["harmless" if derive.objective == "answers" else "harmful"]
    if derive.objective == "margin":
        examples += learned["harmless"]
    tuned = [
        f"{derive.tuning(name).step_count(examples)} steps of {derive.tuning(name).batch_size} "
        f"({name})"
        for name in derive.folders
    ]
    parts = [", ".join(tuned)]
    if derive.scores:
        parts.append(f"scores from at most {derive.score_samples} of them")
    if derive.objective in _ASKS:
        asked = examples + (learned.get("utility", 0) if derive.weight_of_anchor else 0)
        parts.insert(0, f"about {asked} replies of the base")
    return "; ".join(parts)


def _density(options: FixOptions) -> float:
    recipe = options.merging
    if isinstance(recipe, MergeRecipe):
        return min(1.0, recipe.share * len(options.derive.folders))
    tops = {"se": recipe.top_se, "osm": recipe.top_osm}
    return min(1.0, sum(tops[name] for name in components_read(recipe)))
