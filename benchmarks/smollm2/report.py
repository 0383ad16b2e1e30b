"""The tables of the experiment, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Row:
    """One row: a method's chosen recipe, and its trials on the test split, one a seed."""

    name: str
    recipe: Mapping[str, Any] | None
    trials: tuple[Trial, ...]


def write_report(
    path: Path,
    rows: Mapping[str, Sequence[Row]],
    chain: Sequence[tuple[str, Mapping[str, Trial]]],
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


def _chain_table(chain: Sequence[tuple[str, Mapping[str, Trial]]]) -> str:
    categories = list(chain[0][1])
    head = [
        "model",
        *(f"harmful: {name}" for name in categories),
        "over-refusal",
        "utility",
        "perplexity",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, found in chain:
        last = found[categories[0]]
        cells = [name, *(f"{found[c].harmful.value:.3f}" for c in categories)]
        cells += [
            f"{last.over_refusal.value:.3f}",
            f"{last.utility.value:.3f}" if last.utility else "",
        ]
        cells += [f"{last.perplexity:.2f}" if last.perplexity else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
