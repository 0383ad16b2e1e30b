"""``patchc sweep``."""

from __future__ import annotations

from collections.abc import Callable
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
_COLUMNS = ("recipe", "harmful", "over-refusal", "utility", "degenerate", "perplexity", "patch")


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
            help="JSONL of the trials; an existing one is continued.",
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
        typer.Option(help="Who says what is a refusal; see `patchc evaluate --help`."),
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

    Example: patchc sweep models/chat --se work/se --osm work/osm --harmful dev/harmful.jsonl
    --harmless dev/harmless.jsonl --alpha 5 --beta 4.3,4.5,4.7 --seed 0,1 -o sweep.jsonl
    """
    import patchc
    from patchc.cli.output import print_facts, print_json, progress_bar
    from patchc.evaluation.options import EvaluateOptions
    from patchc.recipe import find_recipe

    texts: dict[str, tuple[str | None, Callable[[str], Any]]] = {
        "retain": (retain, float),
        "top_se": (top_se, float),
        "top_osm": (top_osm, float),
        "alpha": (alpha, float),
        "beta": (beta, float),
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
    if json:
        print_json({"report": report, "figures": drawn})
        return
    _render(report, list(grid))
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


def _render(report: SweepReport, varied: list[str]) -> None:
    from patchc.cli.output import print_table
    from patchc.evaluation.shares import shares_by_layer, shares_by_module
    from patchc.evaluation.trials import cost

    ranked = sorted(report.trials, key=lambda trial: cost(trial, report.base))
    shown = ranked[:_SHOWN]
    print_table(
        f"sweep: the best {len(shown)} of {len(ranked)} trials, after the base",
        _COLUMNS,
        [_row(trial, varied) for trial in (report.base, *shown)],
    )
    selected = report.best.selected or {}
    for part, shares in (
        ("layer", shares_by_layer(selected)),
        ("module", shares_by_module(selected)),
    ):
        _print_bars(f"the best trial's selected parameters by {part}", shares)


def _row(trial: Trial, varied: list[str]) -> tuple[str, ...]:
    from patchc.cli.output import size

    recipe = trial.recipe
    return (
        " ".join(f"{name}={recipe[name]}" for name in varied) if recipe else "base",
        _percent(trial.harmful),
        _percent(trial.over_refusal),
        _percent(trial.utility),
        _percent(trial.degenerate),
        f"{trial.perplexity:.3g}" if trial.perplexity else "",
        size(trial.patch_bytes) if recipe else "",
    )


def _percent(rate: Rate | None) -> str:
    return f"{rate.value:.1%}" if rate else ""


def _print_bars(title: str, shares: dict[str, dict[str, float]]) -> None:
    from patchc.cli.output import print_table

    longest = max((share for found in shares.values() for share in found.values()), default=0.0)
    if not longest:
        return
    parts = next(iter(shares.values()))
    rows = []
    for part in parts:
        cells = [part]
        for found in shares.values():
            bar = "█" * round(20 * found[part] / longest)
            cells += [f"{found[part]:.1%}", f"{bar:·<20}"]
        rows.append(tuple(cells))
    columns = [cell for component in shares for cell in (component, "")]
    print_table(title, ("", *columns), rows)
