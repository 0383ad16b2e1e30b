"""What a chain of patches does: harmful rates by category after each, and what is forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from patchc.report_page.blocks import Block, Code, Facts, Figure, Section, Subsection, Table, Text
from patchc.report_page.labels import RATE_LABELS, label
from patchc.report_page.numbers import change, count, points, rate
from patchc.report_page.pictures import Caption, matrix
from patchc.report_page.turn_results import Turn, TurnResults

_MOST_TURNS, _MOST_CATEGORIES = 40, 40


def turns_section(given: Sequence[TurnResults]) -> Section | None:
    """The matrix of each chain, and what its last patch forgets."""
    if not given:
        return None
    blocks = [
        Subsection(one.source, _chain(one, f"turns{number}")) for number, one in enumerate(given)
    ]
    return Section("turns", "One patch after another", blocks)


def _chain(one: TurnResults, prefix: str) -> list[Block]:
    shown = one.turns[:_MOST_TURNS]
    turns = [*shown, *([one.together] if one.together else [])]
    categories = one.categories[:_MOST_CATEGORIES]
    roots = [
        (f"{number}. {name}", (Code(root),))
        for number, (name, root) in enumerate(zip(one.patches, one.roots, strict=True), start=1)
    ][:_MOST_TURNS]
    blocks: list[Block] = [
        Facts(roots), _matrix(turns, categories, prefix), _forgetting(one, categories)
    ]  # fmt: skip
    rest = (len(one.turns) - len(shown), len(one.categories) - len(categories))
    if any(rest):
        blocks.insert(0, Text((
            "Left out: ", count(rest[0]), " later turns, ", count(rest[1]), " categories.",
        ), "note"))  # fmt: skip
    return blocks


def _matrix(turns: Sequence[Turn], categories: Sequence[str], prefix: str) -> Figure:
    title = "Harmful requests not refused, by category, after each turn"
    picture = matrix(
        Caption(prefix, title, "A row for the base and after each patch, a column for a category."),
        rows=[label(turn.name) for turn in turns],
        columns=[label(name) for name in categories],
        values=[
            [found.value if (found := turn.harmful.get(name)) else None for name in categories]
            for turn in turns
        ],
        legend="share of harmful requests not refused; lower is better",
    )
    rows = [
        (
            (turn.name,),
            *(rate(turn.harmful.get(name)) for name in categories),
            rate(turn.over_refusal),
            rate(turn.utility),
        )
        for turn in turns
    ]
    others = (RATE_LABELS["over_refusal"], RATE_LABELS["utility"])
    return Figure(picture, Table(title, ("turn", *categories, *others), rows), is_open=True)


def _forgetting(one: TurnResults, categories: Sequence[str]) -> Table:
    rows = [
        (
            (name,),
            (points(one.forgetting[name]),) if name in one.forgetting else (),
            change(one.forgetting_changes.get(name)),
        )
        for name in categories
    ]
    title = "Forgetting: the best refusal rate at an earlier turn minus the final one, in points"
    return Table(title, ("category", "forgetting", "with its interval"), rows)
