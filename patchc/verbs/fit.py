"""Fit a recipe's scales to requests, and build the patch that was measured."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from blake3 import blake3

from patchc.checkpoint import open_checkpoint
from patchc.errors import OutputError, UnfixedError, UsageError, import_errors
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.judges import check_judge_is_known_by_name
from patchc.evaluation.paired import Change, check_scipy, compare
from patchc.evaluation.rates import Kinds, rates_by_kind
from patchc.fitting.fit_options import FitOptions, Limit, unmeasured
from patchc.fitting.fitted import Fitted
from patchc.fitting.inputs import Gathering, Sources, gather_entries
from patchc.fitting.overshoot import find_overshoot
from patchc.fitting.search import Range, check_ranges, search_shares, with_most
from patchc.formats import ValueType
from patchc.hub_models import takes_models
from patchc.output_checks import check_output
from patchc.paths import PathLike
from patchc.progress import Progress, ignore_progress
from patchc.recipe import MergeRecipe, Recipe, checks, given_recipe, write_recipe
from patchc.recipe.find import YAML_SUFFIXES
from patchc.runtime.runtime import Runtime
from patchc.stages import file_digests
from patchc.verbs.bench import Bench, open_bench
from patchc.verbs.build import Values, build
from patchc.version import __version__


@dataclass(frozen=True)
class FitReport:
    """What a fit found and wrote.

    Attributes:
        fitted: the base, the measured points and the chosen one, on the development requests.
        changes: how the chosen point's rates differ from the base's; empty without one.
        kinds: the rates by kind of request of "base" and, if there is one, "chosen".
        out: the patch, if there is one.
        patch_bytes: its size.
        recipe_path: the recipe file, if there is one.
        unchecked: limits whose figure was not measured, because there were no questions or no
            reference text.
        notes: as in :class:`patchc.BuildReport`.
    """

    fitted: Fitted
    changes: Mapping[str, Change]
    kinds: Mapping[str, Kinds]
    out: Path | None
    patch_bytes: int
    recipe_path: Path | None
    unchecked: tuple[Limit, ...] = ()
    notes: tuple[str, ...] = ()


@takes_models("base", "se", "osm", "tuned")
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
    max_memory: int | None = None,
    progress: Progress = ignore_progress,
) -> FitReport:
    """Learn the scales of a recipe on development requests, and build the patch.

    The base is opened once. The entries are selected as in :func:`patchc.build` (p, masks, top-k
    and sets). The scales are then learned by gradient descent on the margin of refusal: hinge
    losses on harmful and harmless requests, an anchor to the base, and shrinkage. Every point is
    set in place with the exact arithmetic of a build, so the model that is measured is the one that
    is built. Generation measures the most promising points, and the best one becomes the patch.
    Additive values are stored rounded, while the figures are those of the exact values.

    Memory: at most 12 bytes for each retained entry of each component; and where they fit into
    ``max_memory`` with these, the model and the activations of a batch. Otherwise two layers at a
    time are read from the base's files, and the entries take one more word of the base each. A step
    then reads the model twice, and every token of a batch of replies once. What a layer's gradients
    need is kept where there is room, and computed once more where not. All ways give the same
    patch.

    Args:
        base: the aligned model's folder, with config, tokenizer and chat template.
        se, osm: SafePatching's models for safety enhancement (SE) and over-safety mitigation (OSM),
            with scores beside them, as for :func:`patchc.build`.
        tuned: a merge's models, as for :func:`patchc.build`.
        harmful, harmless, utility, reference: development requests, as for
            :func:`patchc.evaluate`. Test the chosen point on other requests.
        out: the patch file to write; it must not exist.
        recipe: method, densities and the scales to start from. None means SafePatching's defaults.
        recipe_out: the recipe file to write; by default ``out`` with the suffix ``.toml``.
        trace: a file to which every step and measured point is appended. A second run with the same
            inputs continues from it. By default ``out`` with the suffix ``.fit.jsonl``.
        options: how to fit; None means the defaults.
        search: shares to search for, because they have no gradient. The scales are fitted for each
            share that is tried, and the one with the least validation loss is taken.
        trials: how many shares are tried at most, including the recipe's own.
        asking: how to ask and judge; None means the defaults.
        values, value_type: what the patch stores, as for :func:`patchc.build`.
        threads: worker threads of selection and build; None means one per core.
        max_memory: bytes of memory that the process may take while it fits; None means four fifths
            of what is free.
        progress: called with steps, requests and parameters done.

    Raises:
        UnfixedError: no measured point lowers both rates within the limits, or with
            ``best_effort`` every point makes a rate significantly worse. It carries the report.
        EvaluateError, DeriveError: requests, judge or base leave nothing to fit.
        UsageError: an option cannot be met, or ``max_memory`` is too small; says what the least is.
        MissingExtraError: torch, transformers or SciPy is not installed.
        OutputError, StorageError: an output cannot be written.
        and what :func:`patchc.build` raises.
    """
    options, asking = options or FitOptions(), asking or EvaluateOptions()
    recipe = given_recipe(recipe)
    check_ranges(recipe, search)
    checks.count("trials", trials)
    if max_memory is not None:
        checks.count("max_memory", max_memory)
    out = Path(out)
    if not out.name:
        raise OutputError(f"output {out} is a folder; name a file that does not exist")
    recipe_path = Path(recipe_out) if recipe_out else out.with_suffix(".toml")
    trace_path = Path(trace) if trace else out.with_suffix(".fit.jsonl")
    check_scipy()
    check_judge_is_known_by_name(asking)
    sources = Sources.of(base, se, osm, tuned)
    sources.check_searched([one.name for one in search])
    _check_outputs(out, recipe_path, trace_path, tuple(sources.named().values()))
    unchecked = unmeasured(options.limits, utility is not None, reference is not None)
    if recipe_path.suffix.lower() in YAML_SUFFIXES:
        raise UsageError(f"recipe_out is {recipe_path}; it is written as TOML; name it .toml")
    compiled = partial(
        build, base, se=se, osm=osm, tuned=tuned, out=out, values=values, value_type=value_type,
        threads=threads,
    )  # fmt: skip
    # Refuses what the build would refuse, before any request is asked.
    notes = compiled(recipe=recipe, dry_run=True).notes
    bench = open_bench(
        base,
        harmful=harmful,
        harmless=harmless,
        utility=utility,
        reference=reference,
        options=asking,
    )
    fitted = _fit(
        sources, bench, recipe, search, trials, options, trace_path, threads, max_memory, progress
    )
    measured = {"base": fitted.base}
    if fitted.best:
        measured["chosen"] = fitted.best.trial
    kinds = {name: rates_by_kind(bench.requests, one.outcomes) for name, one in measured.items()}
    if fitted.best is None or fitted.recipe is None:
        reasons = "; ".join(
            f"after {one.step} steps {', '.join(one.against)}" for one in fitted.candidates
        )
        raise UnfixedError(
            f"no point lowers harm and over-refusal within the limits ({reasons}). "
            f"{_advise(fitted)}",
            FitReport(fitted, {}, kinds, None, 0, None, unchecked, notes),
        )
    compiled(recipe=fitted.recipe, progress=progress)
    try:
        write_recipe(fitted.recipe, recipe_path)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    changes = compare(fitted.base.outcomes, fitted.best.trial.outcomes)
    size = out.stat().st_size
    return FitReport(fitted, changes, kinds, out, size, recipe_path, unchecked, notes)


def _advise(fitted: Fitted) -> str:
    """Say what to do where no point may become the patch."""
    page = "see docs/how-to/when-fix-finds-nothing.md"
    if how := find_overshoot(fitted.base, {one.step: one.trial for one in fitted.candidates}):
        return (
            f"The derived change is too large: {how}. Derive with a smaller learning rate, such as "
            f"a fifth (objective margin: --margin-learning-rate), or fewer steps; {page}"
        )
    return (
        "Derive with a larger learning rate where the rates hardly moved, or with another "
        "objective; take other limits, or more requests; --best-effort takes the best point that "
        f"makes no rate significantly worse; {page}"
    )


def _check_outputs(out: Path, recipe: Path, trace: Path, inputs: tuple[Path, ...]) -> None:
    if len({os.path.realpath(path) for path in (out, recipe, trace)}) < 3:
        raise UsageError(
            f"patch {out}, recipe {recipe} and trace {trace} must be three files; use other names"
        )
    for path in (out, recipe):
        if path.is_dir():
            raise OutputError(f"output {path} is a folder; name a file that does not exist")
        check_output(path, inputs)
    if not trace.exists():
        check_output(trace, inputs)


def _fit(
    sources: Sources,
    bench: Bench,
    recipe: Recipe | MergeRecipe,
    search: Sequence[Range],
    trials: int,
    options: FitOptions,
    trace_path: Path,
    threads: int | None,
    max_memory: int | None,
    progress: Progress,
) -> Fitted:
    with import_errors("fit", "derive"):
        from patchc.derivation.budget import Budget
        from patchc.derivation.session import choose_device, quiet_transformers, reproducible
        from patchc.fitting.development import given_openings, study_base
        from patchc.fitting.loads import FitLoads
        from patchc.fitting.opening import open_base
        from patchc.fitting.run import Fit
        from patchc.fitting.trace import Trace, open_trace
    device = choose_device(bench.options.device)
    with ExitStack() as stack:
        base = stack.enter_context(open_checkpoint(sources.base))
        runtime = stack.enter_context(Runtime(threads, progress=progress))
        stack.enter_context(quiet_transformers())
        stack.enter_context(reproducible(device, options.seed))
        models = sources.digests([recipe], runtime)
        side_files = file_digests(base.path, base.side_files()[0])

        def trace_at(path: Path, one: Recipe | MergeRecipe) -> AbstractContextManager[Trace]:
            inputs = {
                "patchc": __version__,
                "models": models,
                "side files": side_files,
                "recipe": one.to_json(),
                "evaluation": bench.digest,
                "options": options.course(),
            }
            return open_trace(path, inputs)

        def trace_beside(one: Recipe | MergeRecipe) -> AbstractContextManager[Trace]:
            """Open the trace of a recipe that the search tries."""
            digest = blake3(json.dumps(one.to_json()).encode()).hexdigest(length=4)
            return trace_at(trace_path.with_name(f"{trace_path.stem}-{digest}.jsonl"), one)

        def gathered(one: Recipe | MergeRecipe) -> Gathering:
            return gather_entries(base, sources, one, runtime)

        def loss_of(one: Recipe | MergeRecipe) -> float:
            with trace_beside(one) as tried:
                return Fit(studied, gathered(one), one, options, tried, progress).best_loss()

        trace = stack.enter_context(trace_at(trace_path, recipe))
        gathering = gathered(with_most(recipe, search))
        budget = Budget.of(max_memory, None, trace_path.parent, device)
        loads = FitLoads.of(bench, options, given_openings(bench, options))
        opened = stack.enter_context(
            open_base(base, bench, device, loads, gathering.entries, budget)
        )
        studied = study_base(opened, bench, options, trace, progress)
        if search:
            del gathering
            recipe = search_shares(recipe, search, trials, loss_of)
            trace = stack.enter_context(trace_beside(recipe))
            gathering = gathered(recipe)
        return Fit(studied, gathering, recipe, options, trace, progress).run()
