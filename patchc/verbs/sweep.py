"""Build, apply and measure a grid of recipes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from patchc.checkpoint import open_checkpoint
from patchc.errors import UsageError
from patchc.evaluation.options import EvaluateOptions
from patchc.evaluation.trials import Trial, cost, open_trials
from patchc.progress import Progress, ProgressEvent, ignore_progress
from patchc.recipe import Recipe
from patchc.stream import Workers
from patchc.stream.digest import digest_checkpoint
from patchc.verbs.bench import Bench, open_bench
from patchc.verbs.build import build

PathLike = str | os.PathLike[str]

GRID_PARAMETERS = tuple(
    field.name for field in fields(Recipe) if field.name not in ("include", "exclude", "overrides")
)
"""The parameters of a recipe that a sweep can vary."""


@dataclass(frozen=True)
class SweepReport:
    """What a sweep measured: the base, and every recipe of the grid in order.

    ``best`` has the lowest :func:`~patchc.evaluation.trials.cost`; the first of equals.
    """

    base: Trial
    trials: tuple[Trial, ...]
    best: Trial


def sweep(
    base: PathLike,
    *,
    se: PathLike | None = None,
    osm: PathLike | None = None,
    harmful: PathLike,
    harmless: PathLike,
    utility: PathLike | None = None,
    reference: PathLike | None = None,
    out: PathLike,
    grid: Mapping[str, Sequence[Any]],
    recipe: Recipe | None = None,
    options: EvaluateOptions | None = None,
    threads: int | None = None,
    progress: Progress = ignore_progress,
) -> SweepReport:
    """Build a patch for every point of a grid, apply it and measure the patched model.

    Give it requests of a development split: what is chosen on some requests must be reported on
    others. Models and patches live in a temporary folder, one at a time.

    Args:
        base, se, osm: as for :func:`patchc.build`, with scores beside the tuned weights.
        harmful, harmless, utility, reference: as for :func:`patchc.evaluate`.
        out: a file that takes one line a trial as they come; with one that an interrupted sweep
            left, the trials that it holds are not repeated.
        grid: values to try, by parameter (:data:`GRID_PARAMETERS`); every combination is tried.
        recipe: the other parameters; None means the defaults.
        options: how to ask and judge; None means the defaults.
        threads: worker threads of builds; None means one a core.
        progress: called after each trial, and with the steps of each.

    Raises:
        UsageError: an unknown parameter, or an empty or invalid value.
        EvaluateError: bad requests, a judge that fails, or another sweep's file.
        and what :func:`patchc.build`, :func:`patchc.apply` and :func:`patchc.evaluate` raise.
    """
    recipes = grid_recipes(recipe or Recipe(), grid)
    bench = open_bench(
        base,
        harmful=harmful,
        harmless=harmless,
        utility=utility,
        reference=reference,
        options=options,
    )
    models = {name: path for name, path in (("base", base), ("se", se), ("osm", osm)) if path}
    with Workers(threads) as workers:
        digests = {name: _digest(Path(path), workers) for name, path in models.items()}
    found = []
    with open_trials(Path(out), {"evaluation": bench.digest, "models": digests}) as trials:
        for done, one in enumerate([None, *recipes]):
            trial = trials.find(one.to_json() if one else None)
            if trial is None:
                trial = _try(bench, models, one, threads, progress)
                trials.add(trial)
            found.append(trial)
            progress(ProgressEvent("sweep", done, len(recipes), "trials"))
    backbone, *rest = found
    best = min(rest, key=lambda trial: cost(trial, backbone))
    return SweepReport(backbone, tuple(rest), best)


def grid_recipes(recipe: Recipe, grid: Mapping[str, Sequence[Any]]) -> list[Recipe]:
    """Every combination of the grid's values; the first parameter varies slowest.

    Raises:
        UsageError: an unknown parameter, no value, or an invalid one.
    """
    for name, values in grid.items():
        if name not in GRID_PARAMETERS:
            raise UsageError(
                f"a sweep cannot vary {name!r}; it can vary {', '.join(GRID_PARAMETERS)}"
            )
        if not values:
            raise UsageError(f"the grid gives no value for {name}; name at least one")
    points = itertools.product(*grid.values())
    recipes = [recipe.with_changes(**dict(zip(grid, point, strict=True))) for point in points]
    return list(dict.fromkeys(recipes))


def _try(
    bench: Bench,
    models: Mapping[str, PathLike],
    recipe: Recipe | None,
    threads: int | None,
    progress: Progress,
) -> Trial:
    base = Path(models["base"])
    if recipe is None:
        return bench.measure(base, "base", progress)
    with TemporaryDirectory(prefix="patchc-sweep-") as scratch:
        patch = Path(scratch) / "trial.patchc"
        start = time.perf_counter()
        build(
            base,
            se=models.get("se"),
            osm=models.get("osm"),
            out=patch,
            recipe=recipe,
            threads=threads,
        )
        built = time.perf_counter() - start
        trial = bench.measure_patch(base, patch, progress)
    return replace(trial, seconds=trial.seconds + built)


def _digest(model: Path, workers: Workers) -> str:
    with open_checkpoint(model) as checkpoint:
        return digest_checkpoint(checkpoint, workers).hex()
