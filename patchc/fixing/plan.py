"""What a fix would do and how much disk it would take, computed before anything is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from patchc.checkpoint import open_checkpoint
from patchc.derivation.held_tensors import written_bytes
from patchc.dtypes import WEIGHT_DTYPES
from patchc.evaluation.requests import SetName
from patchc.fixing.fix_options import FixOptions
from patchc.fixing.job import Job
from patchc.fixing.split import SetSplit
from patchc.fixing.stages import kept_stages, seconds_of
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
        kept: whether it was made from the same inputs before, so that it is skipped.
        work: what it does, in words and numbers.
        seconds: how long it took the last time in this folder, with any inputs; None if it never
            finished there.
    """

    name: str
    kept: bool
    work: str
    seconds: float | None


@dataclass(frozen=True)
class FixPlan:
    """What a fix would do.

    Attributes:
        requests, learned, warnings: as in :class:`patchc.fixing.fix_report.FixReport`.
        stages: in the order in which they run.
        derived_bytes: size of the derived components with their scores, at most.
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
    """Compute what a fix would do; nothing is written."""
    learned, derive = job.learned, job.options.deriving
    with open_checkpoint(job.base) as checkpoint:
        derived_bytes = written_bytes(checkpoint, derive)
        taking = [t for t in checkpoint.tensors.values() if t.dtype.name in WEIGHT_DTYPES]
        selected = math.ceil(_density(job.options) * sum(tensor.words for tensor in taking))
        patch_bytes = expected_patch_bytes(checkpoint, taking, selected, 1 << DEFAULT_CHUNK_BITS)
    return FixPlan(
        requests=job.requests.splits,
        learned=learned,
        warnings=job.warnings,
        stages=_stages(job, learned),
        derived_bytes=derived_bytes,
        patch_bytes=patch_bytes,
        copy_bytes=job.nbytes,
    )


def _stages(job: Job, learned: Mapping[SetName, int]) -> tuple[PlannedStage, ...]:
    kept, seconds = kept_stages(job), seconds_of(job)
    fit, longest = job.options.fitting, job.options.asking.max_new_tokens
    splits = job.requests.splits.values()
    development = sum(split.development for split in splits)
    tested = sum(split.test for split in splits)
    most = f"{fit.steps} steps" if fit.minutes is None else f"{fit.minutes:g} minutes of steps"
    work = {
        "split": f"{development + tested} requests",
        "derived": _derivation(job.options, learned),
        "fitted": f"at most {most} of {fit.batch_size} requests; at most "
        f"{(1 + fit.candidates) * development} replies of {longest} tokens "
        f"(the base and {fit.candidates} points)",
        "tested": f"{2 * tested} replies of at most {longest} tokens (base and patched)",
    }
    return tuple(
        PlannedStage(name, kept[name], text, seconds.get(name)) for name, text in work.items()
    )


def _derivation(options: FixOptions, learned: Mapping[SetName, int]) -> str:
    derive = options.deriving
    examples = sum(learned[name] for name in options.derived_from if name != "utility")
    tuned = [
        f"{derive.tuning(name).step_count(examples)} steps of {derive.tuning(name).batch_size} "
        f"({name})"
        for name in derive.folders
    ]
    work = [", ".join(tuned)]
    if derive.scores:
        work.append(f"scores from at most {derive.score_samples} of them")
    if derive.objective in _ASKS:
        asked = sum(learned.get(name, 0) for name in options.derived_from)
        work.insert(0, f"about {asked} replies of the base")
    return "; ".join(work)


def _density(options: FixOptions) -> float:
    recipe = options.merging
    if isinstance(recipe, MergeRecipe):
        return min(1.0, recipe.share * len(options.derive.folders))
    tops = {"se": recipe.top_se, "osm": recipe.top_osm}
    return min(1.0, sum(tops[name] for name in components_read(recipe)))
