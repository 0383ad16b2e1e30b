"""How ``patchc fix`` shows what it would do, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchc.cli.fit_tables import name_openings
from patchc.cli.output import (
    difference,
    percent,
    print_facts,
    print_kinds,
    print_table,
    share,
    size,
    warn,
)

if TYPE_CHECKING:
    from patchc.evaluation.intervals import Rate
    from patchc.fixing.plan import FixPlan
    from patchc.fixing.report import Comparison, Figures, FixReport

_RATES = ("harmful", "over_refusal", "misanswered", "utility", "degenerate")
_NUMBERS = {"perplexity": "perplexity", "answer_perplexity": "of answers"}

Row = tuple[str, ...]


def render_fix(report: FixReport) -> None:
    """Print the figures of both parts, what was written, and what came of it."""
    development, test = report.development, report.test
    asked = ", ".join(
        f"{one.development} + {one.test} {name}" for name, one in report.requests.items()
    )
    title = f"fix: {asked} requests for development + test; judged by {report.judge}; [95 %]"
    points = development.points
    columns: Row
    if test and test.patched:
        chosen = [one for one in points if one.chosen]
        columns = ("", "dev: base", "patched", "test: base", "patched", "change on test")
    else:
        chosen = list(points)
        columns = ("", "dev: base", *(f"step {one.step}" for one in points))
    rows = _rows([development.comparison.base, *(one.figures for one in chosen)], percent)
    if test and test.patched:
        tested = _rows([test.base, test.patched], share)
        rows = {name: (*row, *tested[name], _change(test, name)) for name, row in rows.items()}
    shown = [(_label(name), *row) for name, row in rows.items() if any(row)]
    print_table(title, columns, shown)
    if test and test.patched:
        print_kinds({"base, test": test.base.kinds, "patched, test": test.patched.kinds})
    print_facts("", _facts(report))
    for sentence in report.verdict:
        typer.echo(sentence)
    for warning in report.warnings:
        warn(warning)


def render_plan(plan: FixPlan, out: Path) -> None:
    """Print the counts, the stages and the space of a fix that was not run."""
    facts: dict[str, object] = {}
    for name, one in plan.requests.items():
        kept = f", one {one.grouped_by} kept together" if one.grouped_by else ""
        facts[name] = (
            f"{one.development} for development, of which {plan.learned[name]} to learn from; "
            f"{one.test} for the test{kept}"
        )
    for stage in plan.stages:
        took = f"; took {stage.seconds:.0f} s before" if stage.seconds is not None else ""
        facts[stage.name] = f"{'kept, skipped' if stage.kept else stage.work}{took}"
    facts["space"] = (
        f"at most {size(plan.derived_bytes)} for what is derived, about {size(plan.patch_bytes)} "
        f"for the patch; {size(plan.copy_bytes)} in the temporary folder during the test"
    )
    print_facts(f"fix: would write {out}; nothing was written", facts)
    for warning in plan.warnings:
        warn(warning)


def _facts(report: FixReport) -> dict[str, object]:
    found = report.development
    facts: dict[str, object] = {
        "objective": report.objective,
        "fit": f"{found.steps} steps ({found.ended})",
        "openings": name_openings(found.openings, found.covered),
        "seconds": ", ".join(f"{name} {took:.0f}" for name, took in report.seconds.items()),
    }
    if report.out:
        facts["wrote"] = (
            f"{report.out}, {size(report.patch_bytes)}, {report.share:.2%} of the model; "
            f"{report.recipe}"
        )
    return facts


def _rows(models: Sequence[Figures], show: Callable[[Rate], str]) -> dict[str, Row]:
    """Of each figure, what each model has; empty where it has none."""
    rows: dict[str, Row] = {}
    for name in _RATES:
        rates = [getattr(one, name) for one in models]
        rows[name] = tuple(show(rate) if rate else "" for rate in rates)
    for name in _NUMBERS:
        numbers = [getattr(one, name) for one in models]
        rows[name] = tuple("" if number is None else f"{number:.4g}" for number in numbers)
    return rows


def _label(name: str) -> str:
    return _NUMBERS.get(name, name.replace("_", "-"))


def _change(test: Comparison, name: str) -> str:
    change = test.changes.get(name)
    return difference(change) if change else ""
