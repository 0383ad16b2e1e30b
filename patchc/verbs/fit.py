"""Fit a recipe's scales to requests, and build the patch that was measured."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from patchc.checkpoint import open_checkpoint
from patchc.errors import MissingExtraError, OutputError, UnfixedError, UsageError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.judges import check_judge_is_known_by_name
from patchc.evaluation.kinds import Kinds, rates_by_kind
from patchc.evaluation.paired import Change, check_scipy, compare
from patchc.files import check_output
from patchc.fitting.fit_options import FitOptions, Limit, unmeasured
from patchc.fitting.search import Range, check_ranges, search_shares
from patchc.formats import ValueType
from patchc.progress import Progress, ignore_progress
from patchc.recipe import MergeRecipe, Recipe, checks, write_recipe
from patchc.recipe.find import YAML_SUFFIXES
from patchc.runtime.workers import Workers
from patchc.stages import file_digests
from patchc.verbs.bench import Bench, open_bench
from patchc.verbs.build import Values, build
from patchc.version import __version__

if TYPE_CHECKING:
    from patchc.fitting.inputs import Sources
    from patchc.fitting.run import Fitted

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class FitReport:
    """What a fit found and wrote.

    Attributes:
        fitted: the base, the measured points and the chosen one, on the development requests.
        changes: how the chosen point's rates differ from the base's; empty without one.
        kinds: the rates by kind of request of "base" and, where there is one, "chosen".
        out: the patch; None where there is none.
        patch_bytes: its size.
        recipe_path: the recipe file; None where there is none.
        unchecked: limits whose figure was not measured, for want of questions or a text.
    """

    fitted: Fitted
    changes: Mapping[str, Change]
    kinds: Mapping[str, Kinds]
    out: Path | None
    patch_bytes: int
    recipe_path: Path | None
    unchecked: tuple[Limit, ...] = ()


def fit(
    base: PathLike,
    *,
    se: PathLike | None = None,
    osm: PathLike | None = None,
    tuned: PathLike | Sequence[PathLike] = (),
    harmful: PathLike,
    harmless: PathLike,
    utility: PathLike | None = None,
    reference: PathLike | None = None,
    out: PathLike,
    recipe: Recipe | MergeRecipe | None = None,
    recipe_out: PathLike | None = None,
    trace: PathLike | None = None,
    options: FitOptions | None = None,
    search: Sequence[Range] = (),
    trials: int = 8,
    asking: EvaluateOptions | None = None,
    values: Values = "ulp",
    value_type: ValueType | None = None,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> FitReport:
    """Learn the scales of a recipe on development requests, and build the patch.

    The base is loaded once. Selection is that of :func:`patchc.build` (p, masks, top-k and sets);
    its scales are then learned by gradient on the margin of refusal: hinge losses on harmful and
    harmless requests, an anchor to the base, shrinkage. Every point is set in place with the exact
    arithmetic of a build, so that what is measured is what is built. Generation measures the most
    promising points, and the best one becomes the patch. Additive values are stored rounded; the
    figures are then those of the exact ones.

    Memory: the model, one tensor's gradient, the activations of a batch, and at most 12 bytes for
    each retained entry of each component.

    Args:
        base: the aligned model's folder, with config, tokenizer and chat template.
        se, osm, tuned: as for :func:`patchc.build`, with scores beside SafePatching's.
        harmful, harmless, utility, reference: development requests, as for
            :func:`patchc.evaluate`; report what is chosen on others.
        out: the patch file to write; must not exist.
        recipe: method and densities; its scales are the start. None means SafePatching's defaults.
        recipe_out: the recipe file to write; by default ``out`` with the suffix ``.toml``.
        trace: a file that takes every step and measured point as they come; a second run with the
            same inputs goes on from it. By default ``out`` with the suffix ``.fit.jsonl``.
        options: how to fit; None means the defaults.
        search: shares to search for, since they have no gradient: for each one that is tried the
            scales are fitted, and the least validation loss wins.
        trials: how many are tried at most, the recipe's own among them.
        asking: how to ask and judge; None means the defaults.
        values, value_type: what the patch stores, as for :func:`patchc.build`.
        threads: worker threads of selection and build; None means one a core.
        progress: called with steps, requests and parameters done.

    Raises:
        UnfixedError: no measured point lowers both rates within the limits, or with
            ``best_effort`` every one makes a rate significantly worse; it carries the report.
        EvaluateError, DeriveError: requests, judge or base give nothing to fit on.
        UsageError: an option cannot be met.
        MissingExtraError: torch, transformers or SciPy is not installed.
        OutputError, StorageError: an output cannot be written.
        and what :func:`patchc.build` raises.
    """
    options, asking = options or FitOptions(), asking or EvaluateOptions()
    recipe = recipe or Recipe()
    check_ranges(recipe, search)
    checks.count("trials", trials)
    out = Path(out)
    recipe_path = Path(recipe_out) if recipe_out else out.with_suffix(".toml")
    trace_path = Path(trace) if trace else out.with_suffix(".fit.jsonl")
    check_scipy()
    check_judge_is_known_by_name(asking)
    sources = _sources(base, se, osm, tuned)
    if len({path.resolve() for path in (out, recipe_path, trace_path)}) < 3:
        raise UsageError(
            f"patch {out}, recipe {recipe_path} and trace {trace_path} are three files; name them "
            "apart"
        )
    inputs = tuple(sources.named().values())
    for path in (out, recipe_path):
        if path.is_dir():
            raise OutputError(f"output {path} is a folder; name a file that does not exist")
        check_output(path, inputs)
    if not trace_path.exists():
        check_output(trace_path, inputs)
    unchecked = unmeasured(options.limits, utility is not None, reference is not None)
    if recipe_path.suffix.lower() in YAML_SUFFIXES:
        raise UsageError(f"recipe_out is {recipe_path}; it is written as TOML, name it so")
    compiled = partial(
        build, base, se=se, osm=osm, tuned=tuned, out=out, values=values, value_type=value_type,
        threads=threads,
    )  # fmt: skip
    # What a build would refuse is refused before anything is asked.
    compiled(recipe=recipe, dry_run=True)
    bench = open_bench(
        base,
        harmful=harmful,
        harmless=harmless,
        utility=utility,
        reference=reference,
        options=asking,
    )
    with open_checkpoint(sources.base) as checkpoint:
        side_files = file_digests(sources.base, checkpoint.side_files()[0])
    job = _Job(sources, bench, options, trace_path, threads, progress, side_files)
    fitted = _fit(job, recipe, search, trials)
    if fitted.best is None or fitted.recipe is None:
        report = FitReport(fitted, {}, _kinds(bench, fitted), None, 0, None, unchecked)
        raise UnfixedError(_why(fitted), report)
    compiled(recipe=fitted.recipe, progress=progress)
    try:
        write_recipe(fitted.recipe, recipe_path)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    changes = compare(fitted.base, fitted.best.trial)
    kinds = _kinds(bench, fitted)
    return FitReport(fitted, changes, kinds, out, out.stat().st_size, recipe_path, unchecked)


def _sources(
    base: PathLike,
    se: PathLike | None,
    osm: PathLike | None,
    tuned: PathLike | Sequence[PathLike],
) -> Sources:
    from patchc.fitting.inputs import Sources

    if isinstance(tuned, str | os.PathLike):
        tuned = [tuned]
    return Sources(
        Path(base),
        Path(se) if se else None,
        Path(osm) if osm else None,
        tuple(map(Path, tuned)),
    )


@dataclass(frozen=True)
class _Job:
    """What all fits of one call share."""

    sources: Sources
    bench: Bench
    options: FitOptions
    trace_path: Path
    threads: int | None
    progress: Progress
    side_files: Mapping[str, str]

    def inputs(self, models: Mapping[str, str], recipe: Recipe | MergeRecipe) -> dict[str, Any]:
        """What the trace of a recipe's fit belongs to."""
        return {
            "patchc": __version__,
            "models": models,
            "side files": self.side_files,
            "recipe": recipe.to_json(),
            "evaluation": self.bench.digest,
            "options": self.options.course(),
        }

    def trace_of(self, recipe: Recipe | MergeRecipe) -> Path:
        """Where the trace of a recipe that a search tries lies: beside the call's own."""
        digest = blake3(json.dumps(recipe.to_json()).encode()).hexdigest(length=4)
        return self.trace_path.with_name(f"{self.trace_path.stem}-{digest}.jsonl")


def _fit(job: _Job, recipe: Recipe | MergeRecipe, search: Sequence[Range], trials: int) -> Fitted:
    bench, options, progress = job.bench, job.options, job.progress
    try:
        from patchc.derivation.session import choose_device, quiet_transformers, reproducible
        from patchc.evaluation.generation import load_speaker
        from patchc.fitting.inputs import Gathering, gather_entries
        from patchc.fitting.measuring import Meter
        from patchc.fitting.run import best_loss, fit_scales, study_base
        from patchc.fitting.trace import open_trace
    except ImportError as error:
        raise MissingExtraError(
            f"fit needs {error.name}; install it with `pip install 'patchc[derive]'`"
        ) from error
    device = choose_device(bench.options.device)
    with ExitStack() as stack:
        base = stack.enter_context(open_checkpoint(job.sources.base))
        workers = stack.enter_context(Workers(job.threads))
        stack.enter_context(quiet_transformers())
        stack.enter_context(reproducible(device, options.seed))
        models = job.sources.digests(recipe, workers)
        trace = stack.enter_context(open_trace(job.trace_path, job.inputs(models, recipe)))
        speaker = load_speaker(base, bench.prompts.tokenizer, device, bench.options)
        meter = Meter(speaker, bench.requests, bench.prompts, bench.judge, bench.reference)
        studied = study_base(base, meter, options, trace, progress)

        def gathered(one: Recipe | MergeRecipe) -> Gathering:
            return gather_entries(base, job.sources, one, workers, progress)

        def loss_of(one: Recipe | MergeRecipe) -> float:
            with open_trace(job.trace_of(one), job.inputs(models, one)) as tried:
                return best_loss(studied, gathered(one), one, options, tried, progress)

        if search:
            recipe = search_shares(recipe, search, trials, loss_of)
            own = open_trace(job.trace_of(recipe), job.inputs(models, recipe))
            trace = stack.enter_context(own)
        return fit_scales(studied, gathered(recipe), recipe, options, trace, progress)


def _kinds(bench: Bench, fitted: Fitted) -> dict[str, Kinds]:
    trials = {"base": fitted.base}
    if fitted.best:
        trials["chosen"] = fitted.best.trial
    return {name: rates_by_kind(bench.requests, dict(one.outcomes)) for name, one in trials.items()}


def _why(fitted: Fitted) -> str:
    reasons = "; ".join(
        f"after {one.step} steps {', '.join(one.against)}" for one in fitted.candidates
    )
    return (
        f"no point lowers harm and over-refusal within the limits ({reasons}). Take other limits, "
        "another way to derive, or more requests; --best-effort takes the best point that makes "
        "no rate significantly worse"
    )
