"""Build, apply and measure a grid of recipes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from patchc.checkpoint import open_checkpoint
from patchc.errors import UsageError
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.evaluation.judges import check_judge_is_known_by_name
from patchc.evaluation.kinds import Kinds, rates_by_kind
from patchc.evaluation.paired import check_scipy, worsened
from patchc.evaluation.trials import Trial, cost, open_trials
from patchc.patching.digest import digest_checkpoint
from patchc.progress import Progress, ProgressEvent, ignore_progress
from patchc.recipe import MergeRecipe, Recipe, checks
from patchc.runtime.workers import Workers
from patchc.selection.safepatching.component import ComponentName
from patchc.selection.safepatching.inputs import open_components
from patchc.verbs.bench import Bench, open_bench
from patchc.verbs.build import build

PathLike = str | os.PathLike[str]

_FIXED = ("method", "include", "exclude", "overrides")
_RATIO = "ratio"


@dataclass(frozen=True)
class SweepReport:
    """What a sweep measured.

    Attributes:
        base: the base as it is.
        trials: every trial of the file: those of the grid in its order, then the others.
        best: the trial of the lowest :func:`~patchc.evaluation.trials.cost`; the first of equals.
        kinds: rates by kind of request, of the "base" and of the "best" trial.
    """

    base: Trial
    trials: tuple[Trial, ...]
    best: Trial
    kinds: dict[str, Kinds] = field(default_factory=dict)

    def ranked(self) -> list[Trial]:
        """The trials by their cost, the best first."""
        return sorted(self.trials, key=lambda trial: cost(trial, self.base))

    def worse(self, trial: Trial) -> list[str]:
        """The rates that a trial makes significantly worse than the base's."""
        return worsened(self.base, trial)


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

    Give it requests of a development split: what is chosen on some requests must be reported on
    others. Models and patches live in a temporary folder, one at a time.

    Args:
        base, se, osm, tuned: as for :func:`patchc.build`, with scores beside the tuned weights.
        harmful, harmless, utility, reference: as for :func:`patchc.evaluate`.
        out: a file that takes one line a trial as they come; with one that a sweep of the same
            weights, scores, requests and options left, its trials are not repeated, and are ranked
            with the new ones.
        grid: values to try, by parameter (:func:`grid_parameters`); every combination is tried.
        recipe: the method and the other parameters; None means SafePatching's defaults.
        options: how to ask and judge; None means the defaults.
        threads: worker threads of builds; None means one a core.
        progress: called after each trial, and with the steps of each.

    Raises:
        UsageError: an unknown parameter, an empty or invalid value, or a judge without a name of
            its own.
        EvaluateError: bad requests, a judge that fails, or another sweep's file.
        MissingExtraError: torch, transformers or SciPy is not installed.
        and what :func:`patchc.build`, :func:`patchc.apply` and :func:`patchc.evaluate` raise.
    """
    recipes = grid_recipes(recipe or Recipe(), grid)
    check_judge_is_known_by_name(options or EvaluateOptions())
    check_scipy()
    if isinstance(tuned, str | os.PathLike):
        tuned = [tuned]
    models = _Models(Path(base), se, osm, tuple(tuned))
    _check(models, recipes, threads)
    bench = open_bench(
        base,
        harmful=harmful,
        harmless=harmless,
        utility=utility,
        reference=reference,
        options=options,
    )
    inputs = {"evaluation": bench.digest, "models": _digests(models, recipes, threads)}
    points = [None, *(one.to_json() for one in recipes)]
    found = []
    with open_trials(Path(out), inputs) as trials:
        for done, one in enumerate([None, *recipes]):
            trial = trials.find(points[done])
            if trial is None:
                trial = _try(bench, models, one, threads, progress)
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
    return SweepReport(backbone, tuple(rest), best, kinds)


def grid_parameters(recipe: Recipe | MergeRecipe) -> dict[str, str]:
    """The parameters of a recipe that a sweep can vary: their words, and their fields' names.

    "ratio" stands beside those of SafePatching: a ratio r makes β = r · α.
    """
    names = [field.name for field in fields(recipe) if field.name not in _FIXED]
    known = {name.rstrip("_"): name for name in names}
    return known | {_RATIO: _RATIO} if isinstance(recipe, Recipe) else known


def grid_recipes(
    recipe: Recipe | MergeRecipe, grid: Mapping[str, Sequence[Any]]
) -> list[Recipe | MergeRecipe]:
    """Every combination of the grid's values; the first parameter varies slowest.

    Raises:
        UsageError: an unknown parameter, no value, an invalid one, or "ratio" beside "beta".
    """
    known = grid_parameters(recipe)
    for name, values in grid.items():
        if name not in known:
            raise UsageError(f"a sweep cannot vary {name!r}; it can vary {', '.join(known)}")
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


@dataclass(frozen=True)
class _Models:
    base: Path
    se: PathLike | None
    osm: PathLike | None
    tuned: tuple[PathLike, ...]

    def named(self) -> dict[str, Path]:
        """Every model that is given, by what it is."""
        given = {"base": self.base, "se": self.se, "osm": self.osm}
        given |= {f"tuned {number}": path for number, path in enumerate(self.tuned)}
        return {name: Path(path) for name, path in given.items() if path is not None}

    def build(
        self,
        recipe: Recipe | MergeRecipe,
        out: Path,
        threads: int | None,
        dry_run: bool = False,
    ) -> None:
        """Build the patch of a recipe."""
        build(
            self.base,
            se=self.se,
            osm=self.osm,
            tuned=self.tuned,
            out=out,
            recipe=recipe,
            dry_run=dry_run,
            threads=threads,
        )


def _check(models: _Models, recipes: Sequence[Recipe | MergeRecipe], threads: int | None) -> None:
    """Refuse, before anything is measured, what a build of any recipe would refuse."""
    with TemporaryDirectory(prefix="patchc-sweep-") as scratch:
        for recipe in recipes:
            models.build(recipe, Path(scratch) / "trial.patchc", threads, dry_run=True)


def _digests(
    models: _Models, recipes: Sequence[Recipe | MergeRecipe], threads: int | None
) -> dict[str, str]:
    """The digest of every model, and of all scores that a recipe reads."""
    paths: dict[ComponentName, tuple[PathLike | None, None]] = {
        "se": (models.se, None),
        "osm": (models.osm, None),
    }
    found: dict[str, str] = {}
    with Workers(threads) as workers:
        for name, path in models.named().items():
            with open_checkpoint(path) as model:
                found[name] = digest_checkpoint(model, workers).hex()
        for recipe in recipes:
            if isinstance(recipe, MergeRecipe):
                continue
            with ExitStack() as inputs:
                for part in open_components(inputs, recipe, paths):
                    label = f"{part.name} scores {recipe.score}"
                    if label not in found:
                        found[label] = digest_checkpoint(part.scores, workers).hex()
    return found


def _try(
    bench: Bench,
    models: _Models,
    recipe: Recipe | MergeRecipe | None,
    threads: int | None,
    progress: Progress,
) -> Trial:
    if recipe is None:
        return bench.measure(models.base, "base", progress)
    with TemporaryDirectory(prefix="patchc-sweep-") as scratch:
        patch = Path(scratch) / "trial.patchc"
        start = time.perf_counter()
        models.build(recipe, patch, threads)
        built = time.perf_counter() - start
        trial = bench.measure_patch(models.base, patch, progress)
    return replace(trial, seconds=trial.seconds + built)
