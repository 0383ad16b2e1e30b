"""Build, apply and measure a grid of recipes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from patchc.errors import UsageError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.judges import check_judge_is_known_by_name
from patchc.evaluation.paired import check_scipy, worsened
from patchc.evaluation.rates import Kinds, rates_by_kind
from patchc.evaluation.trials import Trial, cost, open_trials
from patchc.fitting.inputs import Sources
from patchc.hub_models import takes_models
from patchc.paths import PathLike
from patchc.progress import Progress, ProgressEvent, ignore_progress
from patchc.recipe import MergeRecipe, Recipe, checks, given_recipe
from patchc.recipe.parameters import key, parameters
from patchc.runtime.runtime import Runtime
from patchc.verbs.bench import Bench, open_bench
from patchc.verbs.build import build

_RATIO = "ratio"


@dataclass(frozen=True)
class SweepReport:
    """The results of a sweep.

    Attributes:
        base: the unpatched base.
        trials: every trial in the file: those of the grid in its order, then the others.
        best: the trial of the lowest :func:`~patchc.evaluation.trials.cost`; the first of equals.
        kinds: rates by kind of request, of the "base" and of the "best" trial.
        notes: as in :class:`patchc.BuildReport`.
    """

    base: Trial
    trials: tuple[Trial, ...]
    best: Trial
    kinds: dict[str, Kinds] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def ranked(self) -> list[Trial]:
        """Return the trials by their cost, the best first."""
        return sorted(self.trials, key=lambda trial: cost(trial, self.base))

    def worse(self, trial: Trial) -> list[str]:
        """Return the rates of a trial that are significantly worse than the base's."""
        return worsened(self.base.outcomes, trial.outcomes)


@takes_models("base", "se", "osm", "tuned")
def sweep(
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
    grid: Mapping[str, Sequence[Any]],
    recipe: Recipe | MergeRecipe | None = None,
    options: EvaluateOptions | None = None,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> SweepReport:
    """Build a patch for every point of a grid, apply it and measure the patched model.

    Use development requests, and report the chosen recipe's results on other requests.
    Models and patches live in a temporary folder, one at a time.

    Args:
        base, tuned: as for :func:`patchc.build`.
        se, osm: SafePatching's models for safety enhancement (SE) and over-safety mitigation (OSM),
            with scores beside them, as for :func:`patchc.build`.
        harmful, harmless, utility, reference: as for :func:`patchc.evaluate`.
        out: a file that gets one line per trial. If it holds trials of the same weights, scores,
            requests and options, these are not repeated, and are ranked with the new ones.
        grid: values to try, by parameter (:func:`grid_parameters`); every combination is tried.
        recipe: the method and the other parameters; None means SafePatching's defaults.
        options: how to ask and judge; None means the defaults.
        threads: worker threads of builds; None means one per core.
        progress: called after each trial, and with the steps of each.

    Raises:
        UsageError: an unknown parameter, an empty or invalid value, or a judge without a name of
            its own.
        EvaluateError: bad requests, a judge that fails, or another sweep's file.
        MissingExtraError: torch, transformers or SciPy is not installed.
        and what :func:`patchc.build`, :func:`patchc.apply` and :func:`patchc.evaluate` raise.
    """
    recipes = grid_recipes(given_recipe(recipe), grid)
    check_judge_is_known_by_name(options or EvaluateOptions())
    check_scipy()
    sources = Sources.of(base, se, osm, tuned)
    compiled = partial(build, base, se=se, osm=osm, tuned=tuned, threads=threads)
    # Refuses what a build of any recipe would refuse, before anything is measured.
    with TemporaryDirectory(prefix="patchc-sweep-") as scratch:
        planned = Path(scratch) / "trial.patchc"
        plans = [compiled(recipe=one, out=planned, dry_run=True) for one in recipes]
    bench = open_bench(
        base,
        harmful=harmful,
        harmless=harmless,
        utility=utility,
        reference=reference,
        options=options,
    )
    with Runtime(threads) as runtime:
        digests = sources.digests(recipes, runtime, scores_name="{} scores {}")
    inputs = {"evaluation": bench.digest, "models": digests}
    points = [None, *(one.to_json() for one in recipes)]
    found = []
    with open_trials(Path(out), inputs) as trials:
        for done, point in enumerate([None, *recipes]):
            trial = trials.find(points[done])
            if trial is None:
                trial = _try(bench, sources.base, point, compiled, progress)
                trials.add(trial)
            found.append(trial)
            progress(ProgressEvent("sweep", done, len(recipes), "trials"))
        found += [trial for trial in trials.all() if trial.recipe not in points]
    backbone, *rest = found
    best = min(rest, key=lambda trial: cost(trial, backbone))
    kinds = {
        name: rates_by_kind(bench.requests, trial.outcomes)
        for name, trial in (("base", backbone), ("best", best))
    }
    notes = tuple(dict.fromkeys(note for plan in plans for note in plan.notes))
    return SweepReport(backbone, tuple(rest), best, kinds, notes)


def grid_parameters(recipe: Recipe | MergeRecipe) -> dict[str, str]:
    """Return what a sweep can vary of a recipe: the parameters' keys, and their fields' names.

    For SafePatching there is also "ratio": a ratio r makes β = r · α.
    """
    stated = parameters(type(recipe))
    known = {key(name): name for name, one in stated.items() if one.sweepable}
    return known | {_RATIO: _RATIO} if isinstance(recipe, Recipe) else known


def grid_recipes(
    recipe: Recipe | MergeRecipe, grid: Mapping[str, Sequence[Any]]
) -> list[Recipe | MergeRecipe]:
    """Make a recipe of every combination of values; the first parameter varies slowest.

    Raises:
        UsageError: an unknown parameter, no value, an invalid one, or "ratio" beside "beta".
    """
    known = grid_parameters(recipe)
    for name, values in grid.items():
        if name not in known:
            raise UsageError(f"a sweep cannot vary {name!r:.80}; it can vary {', '.join(known)}")
        if not values:
            raise UsageError(f"the grid gives no value for {name}; name at least one")
    if _RATIO in grid and "beta" in grid:
        raise UsageError("the grid gives ratio and beta, and β is the ratio times α; give one")
    names = [known[name] for name in grid]
    points = itertools.product(*grid.values())
    recipes = [_changed(recipe, dict(zip(names, point, strict=True))) for point in points]
    return list(dict.fromkeys(recipes))


def _changed(recipe: Recipe | MergeRecipe, values: dict[str, Any]) -> Recipe | MergeRecipe:
    ratio = values.pop(_RATIO, None)
    changed = recipe.with_changes(**values)
    if ratio is None or not isinstance(changed, Recipe):
        return changed
    beta = checks.scale(_RATIO, ratio) * changed.alpha
    # Twelve digits make 0.86 times 5 the 4.3 that a grid of β has.
    return changed.with_changes(beta=float(f"{beta:.12g}"))


def _try(
    bench: Bench,
    base: Path,
    recipe: Recipe | MergeRecipe | None,
    compiled: Callable[..., Any],
    progress: Progress,
) -> Trial:
    if recipe is None:
        return bench.measure(base, "base", progress)
    with TemporaryDirectory(prefix="patchc-sweep-") as scratch:
        patch = Path(scratch) / "trial.patchc"
        start = time.perf_counter()
        compiled(recipe=recipe, out=patch)
        built = time.perf_counter() - start
        trial = bench.measure_patch(base, patch, progress)
    return replace(trial, seconds=trial.seconds + built)
