"""The tables of the experiment, in Markdown, from the reports of every row."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rows import DERIVED, rows

Report = dict[str, Any]

HEAD = (
    "| row | harm | over-refusal | misanswered | utility | perplexity | patch | minutes | seeds |\n"
    "|---|---|---|---|---|---|---|---|---|"
)
_RATES = ("harmful", "over_refusal", "misanswered", "utility")


def write_report(work: Path, path: Path) -> None:
    """Write one table a policy, of the test requests, of all rows that are there."""
    parts = [
        "# Tables of the experiment with fix",
        "Written by `make bench-fix`; what they mean is in [the page beside](fix-experiment.md). "
        "Test requests, in %. Below a row's mean over its seeds stands the change from the "
        "backbone, in points, with its paired 95 % bounds, of the first seed. Minutes are "
        "those of each stage's last run: one that was gone on with took longer.",
    ]
    for policy in sorted(work.iterdir()):
        seeds = {**{row.name: row.seeds for row in rows()}, **dict.fromkeys(DERIVED, 1)}
        found = {name: _reports(policy, name, count) for name, count in seeds.items()}
        told = {name: reports for name, reports in found.items() if reports}
        if told:
            tests = [one["test"] for reports in told.values() for one in reports if one["test"]]
            lines = [
                HEAD,
                *(f"| backbone | {_figures([test['base']])} | | | |" for test in tests[:1]),
            ]
            lines += [line for name, reports in told.items() for line in _lines(name, reports)]
            parts += [f"## {policy.name}", "\n".join(lines)]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def folder_of(row: str, seed: int) -> str:
    """The folder of a row with a seed."""
    return "".join(c if c.isalnum() else "-" for c in row) + f"-{seed}"


def _reports(policy: Path, name: str, seeds: int) -> list[Report]:
    paths = [policy / "rows" / folder_of(name, seed) / "report.json" for seed in range(seeds)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def _lines(name: str, reports: Sequence[Report]) -> list[str]:
    tested = [report for report in reports if report["test"] and report["test"]["patched"]]
    if not tested:
        return [f"| {name} | no patch: nothing lowers both rates within the limits |||||||  |"]
    size = statistics.mean(report["patch_bytes"] for report in tested)
    minutes = statistics.mean(sum(report["seconds"].values()) for report in reports) / 60
    figures = _figures([report["test"]["patched"] for report in tested])
    seeds = f"{len(tested)}" if len(tested) == len(reports) else f"{len(tested)} of {len(reports)}"
    changes = tested[0]["test"]["changes"]
    bounds = " | ".join(_bounds(changes.get(rate)) for rate in _RATES)
    return [
        f"| {name} | {figures} | {_size(size)} | {minutes:.0f} | {seeds} |",
        f"| | {bounds} | | | | |",
    ]


def _figures(found: Sequence[Report]) -> str:
    cells = [_spread([100 * one[rate]["value"] for one in found if one[rate]]) for rate in _RATES]
    perplexities = [one["perplexity"] for one in found if one["perplexity"]]
    cells.append(f"{statistics.mean(perplexities):.2f}" if perplexities else "")
    return " | ".join(cells)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def _bounds(change: Report | None) -> str:
    if change is None:
        return ""
    return f"[{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]"


def _size(nbytes: float) -> str:
    """Empty where there is no patch, but a tuned model."""
    if not nbytes:
        return ""
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.0f} kB"
