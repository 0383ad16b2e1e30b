"""The output of ``patchc fit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchc.cli.output import (
    FIGURES,
    difference,
    figures,
    percent,
    print_facts,
    print_kinds,
    print_table,
    size,
)

if TYPE_CHECKING:
    from patchc.verbs.fit import FitReport

_SHOWN = ("harmful", "over_refusal", "misanswered", "utility", "perplexity")
_OPTIONS = {"utility": "--utility", "perplexity": "--reference"}


def render_fit(report: FitReport) -> None:
    """Print the measured points, how the chosen one differs from the base, and what was written."""
    fitted = report.fitted
    columns = ("point", *(FIGURES[name] for name in _SHOWN), "margin agrees", "against it")
    rows = [("base", *figures(fitted.base, percent, names=_SHOWN), "", "")]
    for one in fitted.candidates:
        point = f"step {one.step}{', chosen' if one is fitted.best else ''}"
        measured = figures(one.trial, percent, names=_SHOWN)
        rows.append((point, *measured, f"{one.agreement:.0%}", ", ".join(one.against)))
    print_table("fit: development requests, by generation", columns, rows)
    print_kinds(dict(report.kinds))
    facts: dict[str, object] = {
        "steps": f"{fitted.steps} ({fitted.ended}), {fitted.seconds / 60:.1f} minutes",
        **{f"not checked: {one}": f"{_OPTIONS[one.name]} FILE does" for one in report.unchecked},
        "openings": name_openings(fitted.openings, fitted.covered),
    }
    for name, change in report.changes.items():
        facts[name.replace("_", "-")] = f"{difference(change)} (points, on the same requests)"
    if report.out:
        facts["wrote"] = f"{report.out}, {size(report.patch_bytes)}; {report.recipe_path}"
    print_facts("", facts)


def name_openings(openings: Sequence[str], covered: float) -> str:
    """Write how refusals begin, and the share of the base's that begin so."""
    return f"{', '.join(map(repr, openings))}; {covered:.0%} of the base's refusals"
