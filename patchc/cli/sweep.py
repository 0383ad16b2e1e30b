"""``patchc sweep``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from patchc.cli import options as shared
from patchc.cli.options import BaseFolder, Json, OsmModel, SeModel, Threads, only, option
from patchc.cli.recipe_options import PARAMETERS, flag, takes, value_type
from patchc.recipe.parameters import MERGE, key

if TYPE_CHECKING:
    from patchc.evaluation.trials import Trial
    from patchc.verbs.sweep import SweepReport

_GRID = "Grid: values to try, separated by commas"
_SHOWN = 12


def _grid_options() -> dict[str, Any]:
    """Make the options of the grid, one per parameter; each takes a text of values."""
    texts = {}
    for name, stated in PARAMETERS.items():
        kind, _ = value_type(name)
        if stated.sweepable and kind is not bool:
            text = stated.sweep_help or stated.help
            if choices := get_args(kind):
                text = f"{', '.join(choices)}."
            if stated.panel == MERGE:
                text = f"Merges: {text[0].lower()}{text[1:]}"
            texts[name] = text
        if name == "beta":
            texts["ratio"] = "In place of beta: beta as a multiple of alpha."
    return {
        name: Annotated[str | None, option(text, flag(name), panel=_GRID)]
        for name, text in texts.items()
    }


@takes(_grid_options())
def sweep(
    base: BaseFolder,
    harmful: Annotated[Path, option("Requests that should be refused.")],
    harmless: Annotated[Path, option("Requests that should be answered.")],
    out: Annotated[
        Path,
        option(
            "JSONL of the trials; an existing one is continued, and all of it is ranked.",
            "-o",
            "--out",
        ),
    ],
    se: SeModel = None,
    osm: OsmModel = None,
    tuned: Annotated[
        list[Path] | None,
        option(
            "For a merge: a tuned model; may be repeated.", metavar="MODEL", parser=shared.model
        ),
    ] = None,
    utility: Annotated[Path | None, option("Questions with accepted answers.")] = None,
    reference: Annotated[Path | None, option("Text to take the perplexity of.")] = None,
    recipe: Annotated[
        str,
        option(
            "Name of a method, or TOML or YAML file with the other parameters.",
            shown="safepatching",
        ),
    ] = "safepatching",
    judge: Annotated[
        str,
        option(
            "Who gives the verdicts; a function is (prompts, replies) -> list\\[bool], True = "
            "refused; see `patchc evaluate --help`."
        ),
    ] = "phrases",
    max_new_tokens: Annotated[int, option("Longest reply.")] = 32,
    limit: Annotated[int | None, option("Only so many requests of each set.", shown="all")] = None,
    figures: Annotated[
        Path | None, option("Folder for the figures (needs the plot extra).")
    ] = None,
    threads: Threads = None,
    json: Json = False,
    **texts: str | None,
) -> None:
    """Build, apply and measure every recipe of a grid, on requests kept for development.

    A rate is worse than the base's where the exact McNemar test on the same requests has p < 0.05.

    Example: patchc sweep models/chat --se work/se --osm work/osm --harmful dev/harmful.jsonl
    --harmless dev/harmless.jsonl --alpha 5,6 --ratio 0.86,0.9,0.94 -o sweep.jsonl
    """
    data = only(locals(), "harmful", "harmless", "utility", "reference")
    given = only(locals(), "se", "osm", "out", "threads")
    import patchc
    from patchc.cli.output import print_facts, print_json, print_next, warn
    from patchc.cli.showing_progress import showing_progress
    from patchc.evaluation.figures import check_figures, draw_sweep
    from patchc.recipe import find_recipe

    grid = {key(name): _parse(name, text) for name, text in texts.items() if text is not None}
    if figures:
        check_figures(figures)
    with showing_progress() as progress:
        report = patchc.sweep(
            base,
            **data,
            **given,
            tuned=tuned or (),
            grid=grid,
            recipe=find_recipe(recipe or "safepatching"),
            options=patchc.EvaluateOptions(judge, max_new_tokens, limit=limit),
            progress=progress,
        )
    for note in report.notes:
        warn(note)
    drawn = draw_sweep(report.base, report.trials, report.best, figures) if figures else []
    shown = _shown(report, list(grid))
    if json:
        print_json({"report": _short(report, shown), "figures": drawn})
        return
    _render(report, shown)
    if drawn:
        print_facts("figures", {path.name: path for path in drawn})
    if not report.worse(report.best):
        components = [("--se", se), ("--osm", osm), *(("--tuned", one) for one in tuned or ())]
        words = [word for name, path in components if path for word in (name, path)]
        words += ["--recipe", recipe] if recipe != "safepatching" else []
        words += _as_options(_parameters(report.best, shown))
        print_next("build", base, *words, "-o", out.with_suffix(".patchc"))


def _parse(name: str, text: str) -> list[Any]:
    from patchc.errors import UsageError

    kind = value_type(name)[0] if name in PARAMETERS else float
    read = kind if kind in (float, int) else str
    try:
        return [read(one.strip()) for one in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{flag(name)} is {text!r:.60}; give values between commas") from error


def _shown(report: SweepReport, varied: list[str]) -> list[str]:
    """Return the parameters that differ between trials, and those that the grid names."""
    recipes = [trial.recipe for trial in report.trials if trial.recipe is not None]
    names = dict.fromkeys(name for recipe in recipes for name in recipe)
    return [
        name
        for name in names
        if name in varied or any(one.get(name) != recipes[0].get(name) for one in recipes)
    ]


def _short(report: SweepReport, shown: list[str]) -> dict[str, Any]:
    """Return the base and the ranked trials, without what only their file needs."""
    from patchc.cli.output import FIGURES
    from patchc.evaluation.trials import cost

    def measured(trial: Trial) -> dict[str, Any]:
        return {name: getattr(trial, name) for name in FIGURES}

    return {
        "base": measured(report.base),
        "trials": [
            {
                "recipe": _parameters(trial, shown),
                "cost": cost(trial, report.base),
                **measured(trial),
                "patch_bytes": trial.patch_bytes,
                "worse": report.worse(trial),
            }
            for trial in report.ranked()
        ],
        "kinds": report.kinds,
    }


def _parameters(trial: Trial, shown: list[str]) -> dict[str, Any]:
    recipe = trial.recipe or {}
    return {name: recipe[name] for name in shown if name in recipe}


def _as_options(parameters: Mapping[str, Any]) -> list[Any]:
    words: list[Any] = []
    for name, value in parameters.items():
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag(name)[2:]}")
        else:
            words += [flag(name), str(value)]
    return words


def _render(report: SweepReport, shown: list[str]) -> None:
    from patchc.cli.output import FIGURES, figures, print_kinds, print_table, size

    def cells(trial: Trial) -> tuple[str, ...]:
        return figures(trial, lambda rate: f"{rate.value:.1%}", digits=3)

    best = report.ranked()[:_SHOWN]
    rows = [("base", *cells(report.base), "", "")]
    for trial in best:
        recipe = " ".join(f"{name}={value}" for name, value in _parameters(trial, shown).items())
        worse = ", ".join(name.replace("_", "-") for name in report.worse(trial))
        rows.append((recipe, *cells(trial), size(trial.patch_bytes), worse))
    print_table(
        f"sweep: the best {len(best)} of {len(report.trials)} trials, after the base",
        ("recipe", *FIGURES.values(), "patch", "worse than the base"),
        rows,
        hide_empty=True,
    )
    print_kinds(report.kinds)
