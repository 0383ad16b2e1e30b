"""The tables of the experiment, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from words import CATEGORIES

from patchc.evaluation.trials import Trial

TITLES = {
    "models": "The models",
    "SafePatching": "SafePatching",
    "comparisons": "What it is compared with",
    "ablations": "One option changed, everything else as chosen",
    "frontier": "Ever smaller patches",
}
HEAD = (
    "| method | harmful | over-refusal | sum | utility | degenerate | perplexity | changed entries "
    "| patch | seeds |\n|---|---|---|---|---|---|---|---|---|---|"
)

Report = dict[str, Any]
"""What ``patchc.evaluate`` found of a chain, as JSON values."""


@dataclass(frozen=True)
class Row:
    """One row: a method's chosen recipe, and its trials on the test split, one a seed."""

    name: str
    recipe: Mapping[str, Any] | None
    trials: tuple[Trial, ...]


def write_report(
    path: Path,
    rows: Mapping[str, Sequence[Row]],
    chain: Report | None,
    seconds: float,
) -> None:
    """Write all tables; figures are means over the seeds with their range."""
    parts = [
        "# Tables of the SmolLM2 experiment",
        "Written by `make bench-smollm2`; what they mean is in [the page beside](README.md). Test "
        "split only. Rates: mean over retention seeds, with the range where there are several.",
    ]
    for group, members in rows.items():
        parts += [f"## {TITLES[group]}", "\n".join([HEAD, *map(_line, members)])]
        chosen = [f"- {row.name}: {_parameters(row.recipe)}" for row in members if row.recipe]
        if chosen:
            parts += ["Parameters:", "\n".join(chosen)]
    if chain:
        parts += ["## Three categories patched in turn", _chain_table(chain)]
        parts += [_forgetting_table(chain["turns"])]
    parts += [f"All stages and trials together took {seconds / 60:.0f} minutes."]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _line(row: Row) -> str:
    trials = row.trials
    sums = [t.harmful.value + t.over_refusal.value for t in trials]
    cells = [
        row.name.replace("|", "\\|"),
        _spread([t.harmful.value for t in trials], ".3f"),
        _spread([t.over_refusal.value for t in trials], ".3f"),
        _spread(sums, ".3f"),
        _spread([t.utility.value for t in trials if t.utility], ".3f"),
        _spread([t.degenerate.value for t in trials], ".3f"),
        _spread([t.perplexity or 0.0 for t in trials], ".2f"),
        f"{statistics.mean(t.changed_words for t in trials):,.0f}" if row.recipe else "",
        f"{statistics.mean(t.patch_bytes for t in trials) / 1000:,.0f} kB" if row.recipe else "",
        str(len(trials)),
    ]
    return "| " + " | ".join(cells) + " |"


def _spread(values: Sequence[float], form: str) -> str:
    mean = format(statistics.mean(values), form)
    low, high = format(min(values), form), format(max(values), form)
    return mean if low == high else f"{mean} ({low} to {high})"


def _parameters(recipe: Mapping[str, Any]) -> str:
    skipped = ("include", "exclude", "overrides", "seed")
    shown = {name: value for name, value in recipe.items() if name not in skipped}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown.items()
    )


def _chain_table(chain: Report) -> str:
    turns = chain["turns"]
    categories, together = turns["categories"], turns["together"]
    names = ["backbone", *(f"+ {name}" for name in CATEGORIES), "all three on the backbone, added"]
    by_category = [*turns["harmful"], together["harmful"]]
    head = ["model", *(f"harmful: {name}" for name in categories)]
    head += ["over-refusal", "utility", "perplexity"]
    rows = []
    for name, harmful, found in zip(names, by_category, chain["models"], strict=True):
        rates = [*(harmful[one] for one in categories), found["over_refusal"], found["utility"]]
        cells = [f"{one['value']:.3f}" for one in rates]
        rows.append([name, *cells, f"{found['perplexity']:.2f}"])
    return _table(head, rows)


def _forgetting_table(turns: Report) -> str:
    rows = [
        [name, f"{lost:.3f}", f"{change['low']:.3f} to {change['high']:.3f}"]
        for name, lost in turns["forgetting"].items()
        for change in [turns["forgetting_changes"][name]]
    ]
    return _table(["category", "forgetting", "95 %"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
