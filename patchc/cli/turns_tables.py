"""The tables of paired changes, and of patches that follow one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from patchc.cli.output import FIGURES, difference, percent, print_table

if TYPE_CHECKING:
    from patchc.evaluation.paired import Change
    from patchc.evaluation.rates import Rate
    from patchc.evaluation.turns import TurnsReport

_CHANGES = ("harmful", "over_refusal", "misanswered", "utility")
_TEST = "points [95 %], p of the exact McNemar test"


def print_changes(title: str, first: str, changes: Mapping[str, Mapping[str, Change]]) -> None:
    """Print how rates differ on the same requests, if any do: a row for each name."""
    if changes:
        print_table(
            f"{title}: {_TEST}",
            (first, *(FIGURES[name] for name in _CHANGES)),
            [
                (model, *(difference(found[n]) if n in found else "" for n in _CHANGES))
                for model, found in changes.items()
            ],
            hide_empty=True,
        )


def print_turns(turns: TurnsReport) -> None:
    """Print the rates after each turn by category, what each turn changed, and the forgetting."""
    rows = [*zip(turns.models, turns.harmful, turns.over_refusal, turns.utility, strict=True)]
    together = turns.together
    if together:
        found = (together.harmful, together.over_refusal, together.utility)
        rows.append((together.model, *found))
    counts = ", ".join(f"{turns.harmful[0][name].total} {name}" for name in turns.categories)
    print_table(
        f"turns: harmful requests not refused, by category ({counts})",
        ("model", *turns.categories, "over-refusal", "utility"),
        [
            (model, *(percent(harmful[n]) for n in turns.categories), *map(_percent, others))
            for model, harmful, *others in rows
        ],
        hide_empty=True,
    )
    after = dict(zip(turns.models[1:], turns.changes, strict=True))
    print_changes("each turn − the one before", "turn", after)
    if together:
        print_changes("together − the last turn", "model", {together.model: together.changes})
    print_table(
        f"forgetting: refused at best before the last turn − after it: {_TEST}",
        ("category", "at best", "after", "forgetting"),
        [
            (
                name,
                f"{100 * (1 - turns.harmful[-1][name].value + turns.forgetting[name]):.1f} %",
                f"{100 * (1 - turns.harmful[-1][name].value):.1f} %",
                difference(turns.forgetting_changes[name]),
            )
            for name in turns.categories
        ],
    )


def _percent(rate: Rate | None) -> str:
    return percent(rate) if rate else ""
