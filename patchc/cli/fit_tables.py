"""How ``patchc fit`` shows what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchc.cli.output import (
    difference,
    percent,
    print_facts,
    print_kinds,
    print_table,
    size,
)

if TYPE_CHECKING:
    from patchc.evaluation.trials import Trial
    from patchc.fitting.choice import Candidate
    from patchc.verbs.fit import FitReport

_COLUMNS = (
    "point",
    "harmful",
    "over-refusal",
    "misanswered",
    "utility",
    "perplexity",
    "margin agrees",
    "against it",
)


def render_fit(report: FitReport) -> None:
    """Print the measured points, how the chosen one differs from the base, and what was written."""
    fitted = report.fitted
    rows = [
        ("base", *_figures(fitted.base), "", ""),
        *(_row(one, one is fitted.best) for one in fitted.candidates),
    ]
    print_table("fit: development requests, by generation", _COLUMNS, rows)
    print_kinds(dict(report.kinds))
    facts: dict[str, object] = {
        "steps": f"{fitted.steps} ({fitted.ended}), {fitted.seconds / 60:.1f} minutes",
        **{f"not checked: {limit}": "nothing measures it" for limit in report.unchecked},
        "openings": name_openings(fitted.openings, fitted.covered),
    }
    for name, change in report.changes.items():
        facts[name.replace("_", "-")] = f"{difference(change)} (points, on the same requests)"
    if report.out:
        facts["wrote"] = f"{report.out}, {size(report.patch_bytes)}; {report.recipe_path}"
    print_facts("", facts)


def name_openings(openings: Sequence[str], covered: float) -> str:
    """How refusals begin, and the share of the base's that begin so."""
    return f"{', '.join(map(repr, openings))}; {covered:.0%} of the base's refusals"


def _row(one: Candidate, chosen: bool) -> tuple[str, ...]:
    name = f"step {one.step}{', chosen' if chosen else ''}"
    return (name, *_figures(one.trial), f"{one.agreement:.0%}", ", ".join(one.against))


def _figures(trial: Trial) -> tuple[str, ...]:
    rates = (trial.harmful, trial.over_refusal, trial.misanswered, trial.utility)
    return (
        *(percent(rate) if rate else "" for rate in rates),
        f"{trial.perplexity:.4g}" if trial.perplexity is not None else "",
    )
