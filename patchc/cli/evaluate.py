"""``patchc evaluate``."""

from __future__ import annotations

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
)

if TYPE_CHECKING:
    from patchc.evaluation.measure import Evaluation
    from patchc.evaluation.paired import Change
    from patchc.verbs.evaluate import EvaluateReport

_REQUESTS = "Requests"
_COLUMNS = (
    "model",
    "harmful",
    "over-refusal",
    "misanswered",
    "utility",
    "degenerate",
    "perplexity",
    "of answers",
)
_CHANGES = ("harmful", "over_refusal", "misanswered", "utility")


def evaluate(
    harmful: Annotated[
        Path,
        typer.Option(
            help="Requests to refuse: JSONL with prompt or messages, and kind for rates by kind; "
            "or AdvBench, XSTest, BeaverTails as published.",
            show_default=False,
            rich_help_panel=_REQUESTS,
        ),
    ],
    harmless: Annotated[
        Path,
        typer.Option(
            help="Requests to answer: the same formats, or OKTest; with response, a reference "
            "answer, for its perplexity.",
            show_default=False,
            rich_help_panel=_REQUESTS,
        ),
    ],
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODEL...", help="Checkpoint folders.", show_default=False),
    ] = None,
    utility: Annotated[
        Path | None,
        typer.Option(
            help="Questions with answer or answers; a reply is right that holds one.",
            rich_help_panel=_REQUESTS,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="A text to take the perplexity of.", rich_help_panel=_REQUESTS),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Take so many requests of each file.", rich_help_panel=_REQUESTS),
    ] = None,
    patch: Annotated[
        Path | None, typer.Option(help="Measure each MODEL as it is, and with this patch.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Results file: a line a reply; a second run goes on."),
    ] = None,
    generations: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSONL of reply with prompt or id, judged as a model's; may be repeated."
        ),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(
            help="Who gives the verdicts: phrases; hf:PATH[=LABEL], a sequence classifier; or "
            "module:function, (prompts, replies) -> list\\[bool] with True = refused, or a list of "
            "'refused', 'answered', 'misanswered'.",
            rich_help_panel=ASKING,
        ),
    ] = "phrases",
    max_new_tokens: MaxNewTokens = 32,
    batch_size: AskedTogether = 64,
    system: SystemMessage = None,
    dtype: AskDtype = Dtype.AUTO,
    device: AskDevice = Device.AUTO,
    lm_eval: Annotated[
        str | None,
        typer.Option(
            metavar="TASKS",
            help="Tasks of lm-evaluation-harness, by name or .yaml file, separated by commas "
            "(needs the lm-eval extra).",
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to write (needs the plot extra).")] = None,
    json: Json = False,
) -> None:
    """Measure harmful, harmless and utility requests on MODEL... (needs the derive extra).

    Example: patchc evaluate models/chat --patch fix.patchc --harmful h.jsonl --harmless s.jsonl
    """
    import patchc
    from patchc.cli.output import print_json, progress_bar
    from patchc.evaluation.plot import check_plot
    from patchc.evaluation.plot import plot as write_plot

    options = patchc.EvaluateOptions(
        judge=judge,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        dtype=dtype.value,
        system=system,
        limit=limit,
        device=device.value,
        lm_eval=tuple(lm_eval.split(",")) if lm_eval else (),
    )
    if plot:
        check_plot(plot)
    with progress_bar() as progress:
        report = patchc.evaluate(
            models or (),
            harmful=harmful,
            harmless=harmless,
            utility=utility,
            reference=reference,
            patch=patch,
            out=out,
            generations=generations or (),
            options=options,
            progress=progress,
        )
    if plot:
        write_plot(report.models, plot)
    if json:
        print_json(report)
    else:
        _render(report)


def _render(report: EvaluateReport) -> None:
    from patchc.cli.output import print_kinds, print_table

    asked = ", ".join(f"{count} {name}" for name, count in report.requests.items())
    rows = [_row(model) for model in report.models]
    shown = [n for n in range(len(_COLUMNS)) if n == 0 or any(row[n] for row in rows)]
    print_table(
        f"evaluate: {asked}; judged by {report.judge}; [95 %]",
        tuple(_COLUMNS[n] for n in shown),
        [tuple(row[n] for n in shown) for row in rows],
    )
    print_kinds({model.model: model.kinds for model in report.models})
    _render_changes(report.changes)
    figures: list[tuple[str, ...]] = [
        (model.model, task, metric, f"{value:.4g}")
        for model in report.models
        for task, metrics in model.lm_eval.items()
        for metric, value in metrics.items()
    ]
    if figures:
        print_table("lm-eval", ("model", "task", "metric", "value"), figures)


def _row(model: Evaluation) -> tuple[str, ...]:
    from patchc.cli.output import share

    return (
        model.model,
        share(model.harmful),
        share(model.over_refusal),
        share(model.misanswered),
        share(model.utility) if model.utility else "",
        share(model.degenerate),
        _number(model.perplexity),
        _number(model.answer_perplexity),
    )


def _render_changes(changes: dict[str, dict[str, Change]]) -> None:
    from patchc.cli.output import difference, print_table

    if not changes:
        return
    shown = [name for name in _CHANGES if any(name in found for found in changes.values())]
    print_table(
        "patched − base on the same requests: points [95 %], p of the exact McNemar test",
        ("model", *(name.replace("_", "-") for name in shown)),
        [
            (model, *(difference(found[name]) if name in found else "" for name in shown))
            for model, found in changes.items()
        ],
    )


def _number(value: float | None) -> str:
    return f"{value:.4g}" if value is not None else ""
