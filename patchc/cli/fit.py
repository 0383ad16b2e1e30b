"""``patchc fit``."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchc.cli.options import (
    ASKING,
    AskDevice,
    AskDtype,
    AskedTogether,
    Device,
    Dtype,
    Json,
    MaxNewTokens,
    SystemMessage,
    Threads,
)
from patchc.fitting.fit_options import FitOptions

if TYPE_CHECKING:
    from patchc.verbs.fit import FitReport

_MODELS = "What is fitted"
_REQUESTS = "Development requests"
_FIT = "Fitting"
_OUTPUT = "Output"
_DEFAULTS = FitOptions()


class Scales(StrEnum):
    """What shares a scale."""

    GLOBAL = "global"
    LAYER = "layer"
    MODULE = "module"
    TENSOR = "tensor"


def fit(
    base: Annotated[Path, typer.Argument(help="The aligned model's folder.", show_default=False)],
    harmful: Annotated[
        Path,
        typer.Option(
            help="Requests to refuse, without answers.",
            show_default=False,
            rich_help_panel=_REQUESTS,
        ),
    ],
    harmless: Annotated[
        Path,
        typer.Option(
            help="Requests to answer, look-alikes among them; a response is a reference answer.",
            show_default=False,
            rich_help_panel=_REQUESTS,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="Patch to write; its recipe and trace are written beside it.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ],
    se: Annotated[
        Path | None,
        typer.Option("--se", help="SE component.", show_default=False, rich_help_panel=_MODELS),
    ] = None,
    osm: Annotated[
        Path | None,
        typer.Option("--osm", help="OSM component.", show_default=False, rich_help_panel=_MODELS),
    ] = None,
    tuned: Annotated[
        list[Path] | None,
        typer.Option(
            help="For a merge: a tuned model; may be repeated.",
            show_default=False,
            rich_help_panel=_MODELS,
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="Method, or TOML or YAML file: densities, sets, and the scales to start from.",
            rich_help_panel=_MODELS,
        ),
    ] = "safepatching",
    utility: Annotated[
        Path | None,
        typer.Option(
            help="Questions with answers, to keep.", show_default=False, rich_help_panel=_REQUESTS
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Text to take the perplexity of.", show_default=False, rich_help_panel=_REQUESTS
        ),
    ] = None,
    scales: Annotated[
        Scales, typer.Option(help="What shares a scale.", rich_help_panel=_FIT)
    ] = Scales.TENSOR,
    budget: Annotated[
        str,
        typer.Option(help="Most steps, or with m most minutes: 60, 10m.", rich_help_panel=_FIT),
    ] = str(_DEFAULTS.steps),
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="How far a figure may move: utility=-2 (points), perplexity=+2% (of the base's); "
            "may be repeated.",
            show_default=" ".join(map(str, _DEFAULTS.limits)),
            rich_help_panel=_FIT,
        ),
    ] = None,
    best_effort: Annotated[
        bool,
        typer.Option(
            "--best-effort",
            help="Write the best point even if it does not lower both rates within the limits.",
            rich_help_panel=_FIT,
        ),
    ] = False,
    opening: Annotated[
        list[str] | None,
        typer.Option(
            help="A text that refusals begin with; may be repeated.",
            show_default="found in the base's replies",
            rich_help_panel=_FIT,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Requests in a step, half of them harmful.", rich_help_panel=_FIT)
    ] = _DEFAULTS.batch_size,
    learning_rate: Annotated[
        float, typer.Option(help="Of the scales, a share of each.", rich_help_panel=_FIT)
    ] = _DEFAULTS.learning_rate,
    target: Annotated[
        float,
        typer.Option(help="Log-odds at which a request is right.", rich_help_panel=_FIT),
    ] = _DEFAULTS.target,
    anchor: Annotated[
        float, typer.Option(help="Weight of the anchor to the base.", rich_help_panel=_FIT)
    ] = _DEFAULTS.anchor_weight,
    shrinkage: Annotated[
        float, typer.Option(help="Weight of the pull to zero.", rich_help_panel=_FIT)
    ] = _DEFAULTS.shrinkage,
    candidates: Annotated[
        int, typer.Option(help="Points that generation measures.", rich_help_panel=_FIT)
    ] = _DEFAULTS.candidates,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="A share to search for: density=0.01:0.3, retain=0.05:0.4; may be repeated.",
            show_default=False,
            rich_help_panel=_FIT,
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Shares that a search tries.", rich_help_panel=_FIT)
    ] = 8,
    seed: Annotated[
        int, typer.Option(help="Of batches and the validation part.", rich_help_panel=_FIT)
    ] = _DEFAULTS.seed,
    judge: Annotated[
        str,
        typer.Option(
            help="Who gives verdicts; see `patchc evaluate --help`.", rich_help_panel=ASKING
        ),
    ] = "phrases",
    max_new_tokens: MaxNewTokens = 32,
    system: SystemMessage = None,
    ask_batch_size: AskedTogether = 64,
    dtype: AskDtype = Dtype.AUTO,
    device: AskDevice = Device.AUTO,
    recipe_out: Annotated[
        Path | None,
        typer.Option(
            help="Recipe file to write.",
            show_default="the patch's name with .toml",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Trace: steps and points; a second run goes on from it.",
            show_default="the patch's name with .fit.jsonl",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="PNG of the fit (needs the plot extra).",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    values: Annotated[
        str, typer.Option(help="ulp or additive, as in build.", rich_help_panel=_OUTPUT)
    ] = "ulp",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Learn a recipe's scales on requests, and write the patch that was measured.

    Example: patchc fit models/chat --se work/se --osm work/osm --harmful dev/harmful.jsonl
    --harmless dev/harmless.jsonl --utility dev/questions.jsonl -o fix.patchc
    """
    import patchc
    from patchc.cli.output import progress_bar, warn
    from patchc.errors import StorageError, UnfixedError
    from patchc.evaluation.evaluate_options import EvaluateOptions
    from patchc.evaluation.plot import check_plot
    from patchc.fitting.fit_options import Limit
    from patchc.fitting.search import Range
    from patchc.recipe import find_recipe

    steps, minutes = parse_budget(budget)
    options = FitOptions(
        sharing=scales.value,
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        target=target,
        anchor_weight=anchor,
        shrinkage=shrinkage,
        candidates=candidates,
        seed=seed,
        limits=tuple(map(Limit.parse, limit)) if limit else _DEFAULTS.limits,
        best_effort=best_effort,
        openings=tuple(opening or ()),
    )
    asking = EvaluateOptions(
        judge=judge,
        max_new_tokens=max_new_tokens,
        batch_size=ask_batch_size,
        dtype=dtype.value,
        system=system,
        device=device.value,
    )
    if figure:
        check_plot(figure)
    try:
        with progress_bar() as progress:
            report = patchc.fit(
                base,
                se=se,
                osm=osm,
                tuned=tuned or (),
                harmful=harmful,
                harmless=harmless,
                utility=utility,
                reference=reference,
                out=out,
                recipe=find_recipe(recipe),
                recipe_out=recipe_out,
                trace=trace,
                options=options,
                search=[Range.parse(text) for text in search or ()],
                trials=trials,
                asking=asking,
                values=values,  # type: ignore[arg-type]
                threads=threads,
                progress=progress,
            )
    except UnfixedError as error:
        try:
            _show(error.report, figure, json)  # type: ignore[arg-type]
        except StorageError as failure:
            warn(str(failure))
        raise
    _show(report, figure, json)


def _show(report: FitReport, figure: Path | None, json: bool) -> None:
    """Print the report, then draw it: a picture that cannot be written costs no figures."""
    from patchc.cli.fit_tables import render_fit
    from patchc.cli.output import print_json

    if json:
        print_json(report)
    else:
        render_fit(report)
    if figure:
        from patchc.fitting.picture import draw_fit

        draw_fit(report.fitted, figure)


def parse_budget(text: str) -> tuple[int, float | None]:
    """The most steps and minutes of a ``--budget``.

    Raises:
        UsageError: the text is neither, or has more than nine digits.
    """
    from patchc.errors import UsageError

    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(m?)\s*", text)
    if match is None or (not match[2] and "." in match[1]):
        raise UsageError(
            f"--budget is {text!r:.80}; give steps (60) or minutes (10m), with nine digits at most"
        )
    if match[2]:
        return 1_000_000, float(match[1])
    return int(match[1]), None
