"""``patchc sweep``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchc.cli.options import Json, Threads

if TYPE_CHECKING:
    from patchc.evaluation.intervals import Rate
    from patchc.evaluation.trials import Trial
    from patchc.verbs.sweep import SweepReport

_GRID = "Grid: values to try, separated by commas"
_SHOWN = 12
_COLUMNS = (
    "recipe",
    "harmful",
    "over-refusal",
    "misanswered",
    "utility",
    "degenerate",
    "perplexity",
    "of answers",
    "patch",
    "worse than the base",
)
_FIGURES = (
    "harmful",
    "over_refusal",
    "misanswered",
    "utility",
    "degenerate",
    "perplexity",
    "answer_perplexity",
)


def _values(help_text: str) -> Any:
    return typer.Option(help=help_text, show_default=False, rich_help_panel=_GRID)


def sweep(
    base: Annotated[Path, typer.Argument(help="The aligned model's folder.", show_default=False)],
    harmful: Annotated[
        Path, typer.Option(help="Requests that should be refused.", show_default=False)
    ],
    harmless: Annotated[
        Path, typer.Option(help="Requests that should be answered.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="JSONL of the trials; an existing one is continued, and all of it is ranked.",
            show_default=False,
        ),
    ],
    se: Annotated[
        Path | None, typer.Option(help="Model tuned by gradient ascent.", show_default=False)
    ] = None,
    osm: Annotated[
        Path | None, typer.Option(help="Model tuned by gradient descent.", show_default=False)
    ] = None,
    tuned: Annotated[
        list[Path] | None,
        typer.Option(help="For a merge: a tuned model; may be repeated.", show_default=False),
    ] = None,
    utility: Annotated[
        Path | None, typer.Option(help="Questions with accepted answers.", show_default=False)
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Text to take the perplexity of.", show_default=False)
    ] = None,
    retain: Annotated[str | None, _values("Probability p that an entry is retained.")] = None,
    top_se: Annotated[str | None, _values("Share a of entries taken by SE score.")] = None,
    top_osm: Annotated[str | None, _values("Share b of entries taken by OSM score.")] = None,
    alpha: Annotated[str | None, _values("Scale of the SE delta.")] = None,
    beta: Annotated[str | None, _values("Scale of the OSM delta.")] = None,
    ratio: Annotated[str | None, _values("In place of beta: beta as a multiple of alpha.")] = None,
    seed: Annotated[str | None, _values("Seeds of the retention draws.")] = None,
    scope: Annotated[str | None, _values("tensor, row, global.")] = None,
    rank_among: Annotated[str | None, _values("retained, all.")] = None,
    score: Annotated[str | None, _values("weight, delta, base-weight, base-delta.")] = None,
    sets: Annotated[str | None, _values("difference, intersection, union, se, osm.")] = None,
    least_step: Annotated[str | None, _values("Least change, in units in the last place.")] = None,
    density: Annotated[str | None, _values("Merges: share of each delta that is kept.")] = None,
    weight: Annotated[str | None, _values("Merges: factor of every delta.")] = None,
    lambda_: Annotated[
        str | None,
        typer.Option(
            "--lambda",
            help="Merges: factor of the merged delta.",
            show_default=False,
            rich_help_panel=_GRID,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Name of a method, or TOML or YAML file with the other parameters.",
            show_default="safepatching",
        ),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(
            help="Who gives the verdicts; a function is (prompts, replies) -> list\\[bool], True = "
            "refused; see `patchc evaluate --help`."
        ),
    ] = "phrases",
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply.")] = 32,
    limit: Annotated[
        int | None, typer.Option(help="Only so many requests of each set.", show_default="all")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder for the figures (needs the plot extra).", show_default=False),
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Build, apply and measure every recipe of a grid, on requests kept for development.

    A rate is worse than the base's where the exact McNemar test on the same requests has p < 0.05.

    Example: patchc sweep models/chat --se work/se --osm work/osm --harmful dev/harmful.jsonl
    --harmless dev/harmless.jsonl --alpha 5,6 --ratio 0.86,0.9,0.94 -o sweep.jsonl
    """
    import patchc
    from patchc.cli.output import print_facts, print_json, progress_bar
    from patchc.evaluation.evaluate_options import EvaluateOptions
    from patchc.recipe import find_recipe

    texts: dict[str, tuple[str | None, Callable[[str], Any]]] = {
        "retain": (retain, float),
        "top_se": (top_se, float),
        "top_osm": (top_osm, float),
        "alpha": (alpha, float),
        "beta": (beta, float),
        "ratio": (ratio, float),
        "seed": (seed, int),
        "scope": (scope, str),
        "rank_among": (rank_among, str),
        "score": (score, str),
        "sets": (sets, str),
        "least_step": (least_step, int),
        "density": (density, float),
        "weight": (weight, float),
        "lambda": (lambda_, float),
    }
    grid = {
        name: _parse(name, text, kind) for name, (text, kind) in texts.items() if text is not None
    }
    with progress_bar() as progress:
        report = patchc.sweep(
            base,
            se=se,
            osm=osm,
            tuned=tuned or (),
            harmful=harmful,
            harmless=harmless,
            utility=utility,
            reference=reference,
            out=out,
            grid=grid,
            recipe=find_recipe(recipe or "safepatching"),
            options=EvaluateOptions(judge=judge, max_new_tokens=max_new_tokens, limit=limit),
            threads=threads,
            progress=progress,
        )
    drawn = _draw(report, figures) if figures else []
    shown = _shown(report, list(grid))
    if json:
        print_json({"report": _short(report, shown), "figures": drawn})
        return
    _render(report, shown)
    if drawn:
        print_facts("figures", {path.name: path for path in drawn})


def _parse(name: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    from patchc.errors import UsageError

    try:
        return [kind(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--{name.replace('_', '-')} is {text!r}; give values separated by commas"
        ) from error


def _draw(report: SweepReport, folder: Path) -> list[Path]:
    from patchc.evaluation.figures import draw_sweep

    return draw_sweep(report.base, report.trials, report.best, folder)


def _shown(report: SweepReport, varied: list[str]) -> list[str]:
    """The parameters that tell the trials apart, and those that the grid names."""
    recipes = [trial.recipe for trial in report.trials if trial.recipe is not None]
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    return [
        name
        for name in names
        if name in varied or any(one.get(name) != recipes[0].get(name) for one in recipes)
    ]


def _short(report: SweepReport, shown: list[str]) -> dict[str, Any]:
    """The base and the ranked trials without what only their file needs to hold."""
    from patchc.evaluation.trials import cost

    return {
        "base": _measured(report.base),
        "trials": [
            {
                "recipe": _parameters(trial, shown),
                "cost": cost(trial, report.base),
                **_measured(trial),
                "patch_bytes": trial.patch_bytes,
                "worse": report.worse(trial),
            }
            for trial in report.ranked()
        ],
        "kinds": report.kinds,
    }


def _measured(trial: Trial) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in _FIGURES}


def _parameters(trial: Trial, shown: list[str]) -> dict[str, Any]:
    recipe = trial.recipe or {}
    return {name: recipe[name] for name in shown if name in recipe}


def _render(report: SweepReport, shown: list[str]) -> None:
    from patchc.cli.output import print_kinds, print_table

    best = report.ranked()[:_SHOWN]
    rows = [_row("base", report.base)]
    for trial in best:
        recipe = " ".join(f"{name}={value}" for name, value in _parameters(trial, shown).items())
        rows.append(_row(recipe, trial, report.worse(trial)))
    kept = [n for n in range(len(_COLUMNS)) if n == 0 or any(row[n] for row in rows)]
    print_table(
        f"sweep: the best {len(best)} of {len(report.trials)} trials, after the base",
        tuple(_COLUMNS[n] for n in kept),
        [tuple(row[n] for n in kept) for row in rows],
    )
    print_kinds(report.kinds)


def _row(recipe: str, trial: Trial, worse: Sequence[str] = ()) -> tuple[str, ...]:
    from patchc.cli.output import size

    return (
        recipe,
        _percent(trial.harmful),
        _percent(trial.over_refusal),
        _percent(trial.misanswered),
        _percent(trial.utility),
        _percent(trial.degenerate),
        _number(trial.perplexity),
        _number(trial.answer_perplexity),
        size(trial.patch_bytes) if trial.recipe else "",
        ", ".join(name.replace("_", "-") for name in worse),
    )


def _percent(rate: Rate | None) -> str:
    return f"{rate.value:.1%}" if rate else ""


def _number(value: float | None) -> str:
    return f"{value:.3g}" if value is not None else ""
