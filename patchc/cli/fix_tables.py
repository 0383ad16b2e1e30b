"""The output of ``patchc fix``: its plan, and its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchc.cli.fit_tables import name_openings
from patchc.cli.output import (
    FIGURES,
    difference,
    figures,
    percent,
    print_facts,
    print_kinds,
    print_table,
    share,
    size,
    tell,
    warn,
)

if TYPE_CHECKING:
    from patchc.fixing.fix_report import FixReport
    from patchc.fixing.plan import FixPlan


def render_fix(report: FixReport) -> None:
    """Print the figures on development and test requests, what was written, and the verdict."""
    development, test = report.development, report.test
    asked = ", ".join(
        f"{one.development} + {one.test} {name}" for name, one in report.requests.items()
    )
    title = f"fix: {asked} requests for development + test; judged by {report.judge}; [95 %]"
    points = development.points
    tested = bool(test and test.patched)
    shown = [one for one in points if one.chosen] if tested else points
    columns = ["", "dev: base", *("patched" if tested else f"step {one.step}" for one in shown)]
    models = [development.comparison.base, *(one.figures for one in shown)]
    cells = [figures(one, percent) for one in models]
    if test and test.patched:
        columns += ["test: base", "patched", "change on test"]
        changes = [test.changes.get(name) for name in FIGURES]
        cells += [figures(test.base, share), figures(test.patched, share)]
        cells += [tuple(difference(change) if change else "" for change in changes)]
    rows = zip(FIGURES.values(), *cells, strict=True)
    print_table(title, columns, [row for row in rows if any(row[1:])])
    if test and test.patched:
        print_kinds({"base, test": test.base.kinds, "patched, test": test.patched.kinds})
    print_facts("", _facts(report))
    for sentence in report.verdict:
        tell(sentence)
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
        facts["page"] = report.page
    return facts
