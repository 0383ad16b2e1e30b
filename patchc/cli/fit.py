"""``patchc fit``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from patchc.cli import options as shared
from patchc.cli.fitting_options import (
    BestEffort,
    Budget,
    Limits,
    MaxMemory,
    Openings,
    Scales,
    fit_options,
    fitting_option,
)
from patchc.cli.options import only, option
from patchc.fitting.fit_options import FitOptions

if TYPE_CHECKING:
    from patchc.verbs.fit import FitReport

_model = partial(option, panel="What is fitted")
_requests = partial(option, panel="Development requests")
_output = partial(option, panel="Output")
_DEFAULTS = FitOptions()


def fit(
    base: shared.BaseFolder,
    harmful: Annotated[Path, _requests("Requests to refuse, without answers.")],
    harmless: Annotated[
        Path,
        _requests("Requests to answer, look-alikes among them; a response is a reference answer."),
    ],
    out: Annotated[
        Path, _output("Patch to write; its recipe and trace are written beside it.", "-o", "--out")
    ],
    se: Annotated[
        Path | None,
        _model("Safety enhancement (SE) component.", metavar="MODEL", parser=shared.model),
    ] = None,
    osm: Annotated[
        Path | None,
        _model("Over-safety mitigation (OSM) component.", metavar="MODEL", parser=shared.model),
    ] = None,
    tuned: Annotated[
        list[Path] | None,
        _model(
            "For a merge: a tuned model; may be repeated.", metavar="MODEL", parser=shared.model
        ),
    ] = None,
    recipe: Annotated[
        str, _model("Method, or TOML or YAML file: densities, sets, and the scales to start from.")
    ] = "safepatching",
    utility: Annotated[Path | None, _requests("Questions with answers, to keep.")] = None,
    reference: Annotated[Path | None, _requests("Text to take the perplexity of.")] = None,
    scales: Scales = _DEFAULTS.sharing,
    budget: Budget = str(_DEFAULTS.steps),
    limit: Limits = None,
    best_effort: BestEffort = False,
    opening: Openings = None,
    batch_size: Annotated[
        int, fitting_option("Requests in a step, half of them harmful.")
    ] = _DEFAULTS.batch_size,
    learning_rate: Annotated[
        float, fitting_option("Of the scales, a share of each.")
    ] = _DEFAULTS.learning_rate,
    target: Annotated[
        float, fitting_option("Log-odds at which a request is right.")
    ] = _DEFAULTS.target,
    anchor: Annotated[
        float, fitting_option("Weight of the anchor to the base.")
    ] = _DEFAULTS.anchor_weight,
    shrinkage: Annotated[
        float, fitting_option("Weight of the pull to zero.")
    ] = _DEFAULTS.shrinkage,
    candidates: Annotated[
        int, fitting_option("Points that generation measures.")
    ] = _DEFAULTS.candidates,
    search: Annotated[
        list[str] | None,
        fitting_option(
            "A share to search for: density=0.01:0.3, retain=0.05:0.4; may be repeated."
        ),
    ] = None,
    trials: Annotated[int, fitting_option("Shares that a search tries.")] = 8,
    seed: Annotated[int, fitting_option("Of batches and the validation part.")] = _DEFAULTS.seed,
    judge: shared.Judge = "phrases",
    max_new_tokens: shared.MaxNewTokens = 32,
    system: shared.SystemMessage = None,
    ask_batch_size: shared.AskedTogether = 64,
    dtype: shared.AskDtype = "auto",
    device: shared.AskDevice = "auto",
    recipe_out: Annotated[
        Path | None, _output("Recipe file to write.", shown="the patch's name with .toml")
    ] = None,
    trace: Annotated[
        Path | None,
        _output(
            "Trace: steps and points; a second run goes on from it.",
            shown="the patch's name with .fit.jsonl",
        ),
    ] = None,
    figure: Annotated[Path | None, _output("PNG of the fit (needs the plot extra).")] = None,
    values: Annotated[str, _output("ulp or additive, as in build.")] = "ulp",
    threads: shared.Threads = None,
    max_memory: MaxMemory = None,
    json: shared.Json = False,
) -> None:
    """Learn a recipe's scales on requests, and write the patch that was measured.

    Example: patchc fit models/chat --se work/se --osm work/osm --harmful dev/harmful.jsonl
    --harmless dev/harmless.jsonl --utility dev/questions.jsonl -o fix.patchc
    """
    data = only(locals(), "harmful", "harmless", "utility", "reference")
    named = "se", "osm", "out", "recipe_out", "trace", "trials", "values", "threads", "max_memory"
    given = only(locals(), *named)
    import patchc
    from patchc.cli.output import warn
    from patchc.cli.showing_progress import showing_progress
    from patchc.errors import StorageError, UnfixedError
    from patchc.evaluation.figures import check_plot
    from patchc.fitting.search import Range
    from patchc.recipe import find_recipe

    options = fit_options(
        scales,
        budget,
        limit,
        best_effort,
        opening,
        batch_size=batch_size,
        learning_rate=learning_rate,
        target=target,
        anchor_weight=anchor,
        shrinkage=shrinkage,
        candidates=candidates,
        seed=seed,
    )
    asking = patchc.EvaluateOptions(
        judge, max_new_tokens, ask_batch_size, dtype, system, device=device
    )
    if figure:
        check_plot(figure)
    try:
        with showing_progress() as progress:
            report = patchc.fit(
                base,
                **data,
                **given,
                tuned=tuned or (),
                recipe=find_recipe(recipe),
                options=options,
                search=[Range.parse(text) for text in search or ()],
                asking=asking,
                progress=progress,
            )
    except UnfixedError as error:
        try:
            _show(error.report, base, figure, json)  # type: ignore[arg-type]
        except StorageError as failure:
            warn(str(failure))
        raise
    _show(report, base, figure, json)


def _show(report: FitReport, base: Path, figure: Path | None, json: bool) -> None:
    """Print the report, then draw it: an error while drawing leaves the report printed."""
    from patchc.cli.fit_tables import render_fit
    from patchc.cli.output import print_json, print_next, warn

    for note in report.notes:
        warn(note)
    if json:
        print_json(report)
    else:
        render_fit(report)
    if figure:
        from patchc.fitting.picture import draw_fit

        draw_fit(report.fitted, figure)
    if report.out and not json:
        print_next("verify", report.out, base)
