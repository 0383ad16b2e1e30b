"""``patchc evaluate``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from patchc.cli import options as shared
from patchc.cli.following_files import SEVERAL
from patchc.cli.options import argument, asking_option, only, option
from patchc.cli.signature_options import Require, Signatures, Trusted
from patchc.cli.trust_options import AllowCode, with_trust

if TYPE_CHECKING:
    from patchc.verbs.evaluate import EvaluateReport

_requests = partial(option, panel="Requests")
_turns = partial(option, panel="Patches that follow one another", metavar=SEVERAL)


def evaluate(
    harmful: Annotated[
        Path,
        _requests(
            "Requests to refuse: JSONL with prompt or messages, and kind for rates by kind; or "
            "AdvBench, XSTest, BeaverTails as published."
        ),
    ],
    harmless: Annotated[
        Path,
        _requests(
            "Requests to answer: the same formats, or OKTest; with response, a reference answer, "
            "for its perplexity."
        ),
    ],
    models: Annotated[
        list[Path] | None,
        argument("Checkpoint folders or hub ids.", "MODEL...", parser=shared.model),
    ] = None,
    utility: Annotated[
        Path | None,
        _requests(
            "Questions with answer or answers; a reply is right that holds one. With choices, the "
            "likeliest one is the reply."
        ),
    ] = None,
    reference: Annotated[Path | None, _requests("A text to take the perplexity of.")] = None,
    limit: Annotated[int | None, _requests("Take so many requests of each file.")] = None,
    patch: Annotated[
        Path | None, option("Measure each MODEL as it is, and with this patch.")
    ] = None,
    turns: Annotated[
        list[Path] | None,
        _turns(
            "Measure MODEL as it is, and after each of these patches: a chain that begins with it. "
            "Files that follow are taken, too."
        ),
    ] = None,
    together: Annotated[
        list[Path] | None,
        _turns(
            "With --turns: compare with MODEL and these additive patches, each made on it; or with "
            "one patch of any kind."
        ),
    ] = None,
    trusted: Trusted = None,
    require: Require = None,
    signatures: Signatures = None,
    allow_code: AllowCode = False,
    out: Annotated[
        Path | None, option("Results file: a line a reply; a second run goes on.", "-o", "--out")
    ] = None,
    generations: Annotated[
        list[Path] | None,
        option("JSONL of reply with prompt or id, judged as a model's; may be repeated."),
    ] = None,
    judge: Annotated[
        str,
        asking_option(
            "Who gives the verdicts: phrases; hf:MODEL[=LABEL], a sequence classifier; or "
            "module:function, (prompts, replies) -> list\\[bool] with True = refused, or a list of "
            "'refused', 'answered', 'misanswered'."
        ),
    ] = "phrases",
    max_new_tokens: shared.MaxNewTokens = 32,
    batch_size: shared.AskedTogether = 64,
    system: shared.SystemMessage = None,
    dtype: shared.AskDtype = "auto",
    device: shared.AskDevice = "auto",
    lm_eval: Annotated[
        str | None,
        option(
            "Tasks of lm-evaluation-harness, by name or .yaml file, separated by commas (needs "
            "the lm-eval extra).",
            metavar="TASKS",
        ),
    ] = None,
    plot: Annotated[Path | None, option("PNG to write (needs the plot extra).")] = None,
    json: shared.Json = False,
) -> None:
    """Measure harmful, harmless and utility requests on MODEL... (needs the derive extra).

    Example: patchc evaluate models/chat --patch fix.patchc --harmful h.jsonl --harmless s.jsonl

    Example: patchc evaluate models/chat --turns a.patchc b.patchc --harmful h.jsonl --harmless
    s.jsonl
    """
    data = only(locals(), "harmful", "harmless", "utility", "reference")
    trust = with_trust(only(locals(), "trusted", "require", "signatures", "allow_code"))
    import patchc
    from patchc.cli.output import patched_name, print_json, print_next
    from patchc.cli.showing_progress import showing_progress
    from patchc.evaluation.figures import check_plot
    from patchc.evaluation.figures import plot as write_plot

    tasks = tuple(lm_eval.split(",")) if lm_eval else ()
    options = patchc.EvaluateOptions(
        judge, max_new_tokens, batch_size, dtype, system, limit, device, tasks
    )
    if plot:
        check_plot(plot)
    with showing_progress() as progress:
        report = patchc.evaluate(
            models or (),
            **data,
            patch=patch,
            turns=turns or (),
            together=together or (),
            **trust,
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
        if patch and models and len(models) == 1:
            print_next("apply", patch, models[0], "-o", patched_name(models[0]))


def _render(report: EvaluateReport) -> None:
    from patchc.cli.output import FIGURES, figures, print_kinds, print_table, share
    from patchc.cli.turns_tables import print_changes, print_turns

    asked = ", ".join(f"{count} {name}" for name, count in report.requests.items())
    print_table(
        f"evaluate: {asked}; judged by {report.judge}; [95 %]",
        ("model", *FIGURES.values()),
        [(model.model, *figures(model, share)) for model in report.models],
        hide_empty=True,
    )
    if report.turns:
        print_turns(report.turns)
    else:
        print_kinds({model.model: model.kinds for model in report.models})
        title = "patched − base on the same requests"
        print_changes(title, "model", report.changes)
    tasks = [
        (model.model, task, metric, f"{value:.4g}")
        for model in report.models
        for task, metrics in model.lm_eval.items()
        for metric, value in metrics.items()
    ]
    if tasks:
        print_table("lm-eval", ("model", "task", "metric", "value"), tasks)
