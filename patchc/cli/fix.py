"""``patchc fix``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from patchc.cli import options as shared
from patchc.cli.fitting_options import (
    BestEffort,
    Budget,
    Limits,
    MaxMemory,
    Openings,
    Scales,
    fit_options,
)
from patchc.cli.options import option
from patchc.derivation.derive_options import DeriveOptions, Objective, TuneOptions
from patchc.fitting.fit_options import FitOptions

if TYPE_CHECKING:
    from patchc.fixing.fix_report import FixReport
    from patchc.recipe import MergeRecipe, Recipe

_requests = partial(option, panel="Requests, to be split")
_part = partial(option, panel="Requests, split already")
_method = partial(option, panel="Method")
_FITTING = FitOptions()
_MARGIN = DeriveOptions().margin
_SETS = ("harmful", "harmless", "utility")


def fix(
    base: shared.BaseFolder,
    out: Annotated[
        Path,
        option(
            "Folder for fix.patchc, recipe.toml, report.json, the page report.html and the kept "
            "stages; the same command goes on there.",
            "-o",
            "--out",
        ),
    ],
    harmful: Annotated[
        Path | None, _requests("Requests to refuse: direct ones and those that came through.")
    ] = None,
    harmless: Annotated[
        Path | None, _requests("Requests to answer: look-alikes and everyday ones.")
    ] = None,
    utility: Annotated[Path | None, _requests("Questions with answers, to keep.")] = None,
    reference: Annotated[Path | None, _requests("Text to take the perplexity of.")] = None,
    test_share: Annotated[float, _requests("Share of the requests that the test gets.")] = 0.5,
    dev_harmful: Annotated[Path | None, _part("Requests to refuse, for development.")] = None,
    test_harmful: Annotated[Path | None, _part("The same, for the test.")] = None,
    dev_harmless: Annotated[Path | None, _part("Requests to answer, for development.")] = None,
    test_harmless: Annotated[Path | None, _part("The same, for the test.")] = None,
    dev_utility: Annotated[Path | None, _part("Questions, for development.")] = None,
    test_utility: Annotated[Path | None, _part("The same, for the test.")] = None,
    objective: Annotated[
        Objective,
        _method(
            "What to derive. margin needs no responses; pair and npo learn from those to harmful "
            "requests, answers from those to harmless ones; refusals from the base's own refusal.",
            metavar="NAME",
        ),
    ] = "margin",
    recipe: Annotated[
        str | None, _method("Method, or TOML or YAML file.", shown="the one for the objective")
    ] = None,
    density: Annotated[
        float | None,
        _method("Share of the derived change that a merge ships.", shown="the recipe's"),
    ] = None,
    margin_learning_rate: Annotated[
        float, _method("Step size of the derivation, for margin; small models need larger ones.")
    ] = _MARGIN.learning_rate,
    margin_steps: Annotated[
        int, _method("Optimiser steps of the derivation, for margin.")
    ] = _MARGIN.steps,
    max_length: Annotated[
        int, _method("Longest request in tokens, or with its response where one is learned.")
    ] = DeriveOptions.max_length,
    scales: Scales = _FITTING.sharing,
    budget: Budget = str(_FITTING.steps),
    limit: Limits = None,
    best_effort: BestEffort = False,
    opening: Openings = None,
    judge: shared.Judge = "phrases",
    max_new_tokens: shared.MaxNewTokens = 32,
    batch_size: shared.AskedTogether = 64,
    system: shared.SystemMessage = None,
    dtype: shared.AskDtype = "auto",
    device: shared.AskDevice = "auto",
    seed: Annotated[int, option("Of split, derivation, draws and fit.")] = 0,
    max_memory: MaxMemory = None,
    dry_run: shared.DryRun = False,
    json: shared.Json = False,
) -> None:
    """Make a patch that lowers harm and over-refusal, and test it (needs the derive extra).

    Example: patchc fix models/chat --harmful h.jsonl --harmless s.jsonl --utility u.jsonl -o fixed
    """
    given = {**locals()}
    import patchc
    from patchc.cli.fix_tables import render_fix, render_plan
    from patchc.cli.output import (
        print_json,
        print_next,
        print_next_without_dry_run,
        printable,
        tell,
    )
    from patchc.cli.showing_progress import showing_progress
    from patchc.errors import UnfixedError
    from patchc.fixing.fix import plan_fix
    from patchc.fixing.stages import PATCH

    options = patchc.FixOptions(
        derive=DeriveOptions(
            objective=objective,
            precision="bfloat16",
            margin=_margin(objective, margin_learning_rate, margin_steps),
            openings=tuple(opening or ()) if objective == "margin" else (),
            max_length=max_length,
            device=device,
        ),
        recipe=_choose_recipe(recipe, density, objective),
        fit=fit_options(scales, budget, limit, best_effort, opening),
        asking=patchc.EvaluateOptions(
            judge, max_new_tokens, batch_size, dtype, system, device=device
        ),
        test_share=test_share,
        seed=seed,
    )
    files = _choose_files(given)

    def show(report: FixReport) -> None:
        if json:
            print_json(report)
            return
        render_fix(report)
        if report.out:
            print_next("verify", report.out, base)

    if dry_run:
        planned = plan_fix(base, out, **files, reference=reference, options=options)
        if json:
            print_json(planned)
            return
        render_plan(planned, out)
        if (out / PATCH).is_file() and all(stage.kept for stage in planned.stages):
            tell(printable(f"nothing is left to do: {out / PATCH} is there, and tested"))
            print_next("verify", out / PATCH, base)
        else:
            print_next_without_dry_run()
        return
    try:
        with showing_progress() as progress:
            report = patchc.fix(
                base,
                out,
                **files,
                reference=reference,
                options=options,
                max_memory=max_memory,
                progress=progress,
            )
    except UnfixedError as error:
        show(error.report)  # type: ignore[arg-type]
        raise
    show(report)


def _margin(objective: Objective, learning_rate: float, steps: int) -> TuneOptions:
    """Take the tuning of the margin from the options.

    Raises:
        UsageError: it is given for another objective, or out of range.
    """
    from patchc.errors import UsageError

    tuning = replace(_MARGIN, learning_rate=learning_rate, steps=steps)
    if objective != "margin" and tuning != _MARGIN:
        raise UsageError(
            "--margin-learning-rate and --margin-steps are for the objective margin, and this one "
            f"is {objective}; leave them out, or run derive and fit with that objective's own"
        )
    return tuning


def _choose_files(given: dict[str, Path | None]) -> dict[str, Any]:
    """Choose files to split, or pairs of files, from the command's parameters.

    Raises:
        UsageError: both are given, or one of those that are needed is not.
    """
    from patchc.errors import UsageError

    whole = {name: given[name] for name in _SETS}
    parts = {name: (given[f"dev_{name}"], given[f"test_{name}"]) for name in _SETS}
    split = any(map(any, parts.values()))
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
        return whole
    for name, pair in parts.items():
        needed = name != "utility" or any(pair)
        for part, path in zip(("dev", "test"), pair, strict=True):
            if needed and not path:
                raise UsageError(f"--{part}-{name} is missing; a set in parts needs both of them")
    return {name: pair for name, pair in parts.items() if any(pair)}


def _choose_recipe(
    name: str | None, density: float | None, objective: Objective
) -> Recipe | MergeRecipe | None:
    from patchc.cli.recipe_options import choose_recipe
    from patchc.errors import UsageError
    from patchc.fixing.fix_options import DEFAULT_RECIPES
    from patchc.recipe import MergeRecipe

    if name is not None:
        return choose_recipe(name, {"density": density})[0]
    if density is None:
        return None
    recipe = DEFAULT_RECIPES[objective]
    if not isinstance(recipe, MergeRecipe):
        raise UsageError(
            f"--density is for a merge, and objective {objective} takes safepatching; leave it "
            "out, or name a --recipe"
        )
    return recipe.with_changes(density=density)
