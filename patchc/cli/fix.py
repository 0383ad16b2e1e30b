"""``patchc fix``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchc.cli.fit import Scales, parse_budget
from patchc.cli.options import (
    ASKING,
    AskDevice,
    AskDtype,
    AskedTogether,
    Device,
    DryRun,
    Dtype,
    Json,
    MaxNewTokens,
    SystemMessage,
)
from patchc.derivation.derive_options import DeriveOptions, Objective
from patchc.evaluation.evaluate_options import EvaluateOptions
from patchc.fitting.fit_options import FitOptions

if TYPE_CHECKING:
    from patchc.fixing.report import FixReport
    from patchc.recipe import MergeRecipe, Recipe

_REQUESTS = "Requests, to be split"
_PARTS = "Requests, split already"
_METHOD = "Method"
_FIT = "Fitting"
_DERIVING = DeriveOptions()
_FITTING = FitOptions()
_SPEAKING = EvaluateOptions()


def _option(panel: str, text: str, default: str | bool = True, *names: str) -> Any:
    return typer.Option(*names, help=text, show_default=default, rich_help_panel=panel)


def _part(what: str) -> Any:
    return _option(_PARTS, what, False)


def fix(
    base: Annotated[Path, typer.Argument(help="The aligned model's folder.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="Folder for fix.patchc, recipe.toml, report.json and the kept stages; the same "
            "command goes on there.",
            show_default=False,
        ),
    ],
    harmful: Annotated[
        Path | None,
        _option(_REQUESTS, "Requests to refuse: direct ones and those that came through.", False),
    ] = None,
    harmless: Annotated[
        Path | None,
        _option(_REQUESTS, "Requests to answer: look-alikes and everyday ones.", False),
    ] = None,
    utility: Annotated[
        Path | None, _option(_REQUESTS, "Questions with answers, to keep.", False)
    ] = None,
    reference: Annotated[
        Path | None, _option(_REQUESTS, "Text to take the perplexity of.", False)
    ] = None,
    test_share: Annotated[
        float, _option(_REQUESTS, "Share of the requests that the test gets.")
    ] = 0.5,
    dev_harmful: Annotated[Path | None, _part("Requests to refuse, for development.")] = None,
    test_harmful: Annotated[Path | None, _part("The same, for the test.")] = None,
    dev_harmless: Annotated[Path | None, _part("Requests to answer, for development.")] = None,
    test_harmless: Annotated[Path | None, _part("The same, for the test.")] = None,
    dev_utility: Annotated[Path | None, _part("Questions, for development.")] = None,
    test_utility: Annotated[Path | None, _part("The same, for the test.")] = None,
    objective: Annotated[
        Objective,
        _option(
            _METHOD,
            "What to derive. margin needs no responses; pair and npo learn from those to harmful "
            "requests, answers from those to harmless ones; refusals from the base's own refusal.",
        ),
    ] = "margin",
    recipe: Annotated[
        str | None,
        _option(_METHOD, "Method, or TOML or YAML file.", "the one for the objective"),
    ] = None,
    density: Annotated[
        float | None,
        _option(_METHOD, "Share of the derived change that a merge ships.", "the recipe's"),
    ] = None,
    max_length: Annotated[
        int,
        _option(_METHOD, "Longest request in tokens, or with its response where one is learned."),
    ] = _DERIVING.max_length,
    scales: Annotated[Scales, _option(_FIT, "What shares a scale.")] = Scales.TENSOR,
    budget: Annotated[str, _option(_FIT, "Most steps, or with m most minutes: 60, 10m.")] = str(
        _FITTING.steps
    ),
    limit: Annotated[
        list[str] | None,
        _option(
            _FIT,
            "How far a figure may move: utility=-2 (points), perplexity=+2% (of the base's); may "
            "be repeated.",
            " ".join(map(str, _FITTING.limits)),
        ),
    ] = None,
    best_effort: Annotated[
        bool,
        _option(
            _FIT,
            "Write the best point even if it does not lower both rates within the limits.",
            True,
            "--best-effort",
        ),
    ] = False,
    opening: Annotated[
        list[str] | None,
        _option(
            _FIT, "A text that refusals begin with; may be repeated.", "found in the base's replies"
        ),
    ] = None,
    judge: Annotated[
        str, _option(ASKING, "Who gives verdicts; see `patchc evaluate --help`.")
    ] = "phrases",
    max_new_tokens: MaxNewTokens = _SPEAKING.max_new_tokens,
    batch_size: AskedTogether = _SPEAKING.batch_size,
    system: SystemMessage = None,
    dtype: AskDtype = Dtype.AUTO,
    device: AskDevice = Device.AUTO,
    seed: Annotated[int, typer.Option(help="Of split, derivation, draws and fit.")] = 0,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make a patch that lowers harm and over-refusal, and test it (needs the derive extra).

    Example: patchc fix models/chat --harmful h.jsonl --harmless s.jsonl --utility u.jsonl -o fixed
    """
    import patchc
    from patchc.cli.fix_tables import render_plan
    from patchc.cli.output import print_json, progress_bar
    from patchc.errors import UnfixedError
    from patchc.fitting.fit_options import Limit
    from patchc.fixing.fix import plan_fix

    steps, minutes = parse_budget(budget)
    openings = tuple(opening or ())
    options = patchc.FixOptions(
        derive=DeriveOptions(
            objective=objective,
            precision="bfloat16",
            openings=openings if objective == "margin" else (),
            max_length=max_length,
            device=device.value,
        ),
        recipe=_choose_recipe(recipe, density, objective),
        fit=FitOptions(
            sharing=scales.value,
            steps=steps,
            minutes=minutes,
            limits=tuple(map(Limit.parse, limit)) if limit else _FITTING.limits,
            best_effort=best_effort,
            openings=openings,
        ),
        asking=EvaluateOptions(
            judge=judge,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            system=system,
            dtype=dtype.value,
            device=device.value,
        ),
        test_share=test_share,
        seed=seed,
    )
    files = _choose_files(
        {"harmful": harmful, "harmless": harmless, "utility": utility},
        {"harmful": dev_harmful, "harmless": dev_harmless, "utility": dev_utility},
        {"harmful": test_harmful, "harmless": test_harmless, "utility": test_utility},
    )
    if dry_run:
        planned = plan_fix(base, out, **files, reference=reference, options=options)
        print_json(planned) if json else render_plan(planned, out)
        return
    try:
        with progress_bar() as progress:
            report = patchc.fix(
                base, out, **files, reference=reference, options=options, progress=progress
            )
    except UnfixedError as error:
        _show(error.report, json)  # type: ignore[arg-type]
        raise
    _show(report, json)


def _choose_files(
    whole: Mapping[str, Path | None],
    development: Mapping[str, Path | None],
    test: Mapping[str, Path | None],
) -> dict[str, Any]:
    """Files to split, or pairs of files.

    Raises:
        UsageError: both are given, or one of those that are needed is not.
    """
    from patchc.errors import UsageError

    split = any(development.values()) or any(test.values())
    if split and any(whole.values()):
        raise UsageError(
            "requests are given to split and as parts; give --harmful, --harmless and --utility, "
            "or the --dev- and --test- options alone"
        )
    if not split:
        for name in ("harmful", "harmless"):
            if not whole[name]:
                raise UsageError(
                    f"--{name} is missing; fix needs --harmful and --harmless, or both in parts: "
                    "--dev-harmful, --test-harmful, --dev-harmless and --test-harmless"
                )
        return dict(whole)
    for name in development:
        needed = name != "utility" or development[name] or test[name]
        for part, given in (("dev", development), ("test", test)):
            if needed and not given[name]:
                raise UsageError(f"--{part}-{name} is missing; a set in parts needs both of them")
    return {name: (development[name], test[name]) for name in development if development[name]}


def _choose_recipe(
    name: str | None, density: float | None, objective: Objective
) -> Recipe | MergeRecipe | None:
    from patchc.cli.chosen_recipe import choose_recipe
    from patchc.errors import UsageError
    from patchc.fixing.fix_options import default_recipe
    from patchc.recipe import MergeRecipe

    if name is not None:
        return choose_recipe(name, density=density)[0]
    if density is None:
        return None
    recipe = default_recipe(objective)
    if not isinstance(recipe, MergeRecipe):
        raise UsageError(
            f"--density is for a merge, and objective {objective} takes safepatching; leave it "
            "out, or name a --recipe"
        )
    return recipe.with_changes(density=density)


def _show(report: FixReport, json: bool) -> None:
    from patchc.cli.fix_tables import render_fix
    from patchc.cli.output import print_json

    if json:
        print_json(report)
    else:
        render_fix(report)
