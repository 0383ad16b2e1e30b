"""What the page cannot say, because nothing that was given says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchc.report_page.blocks import Code, Section, Table, Text

_ALWAYS = (
    "Intervals cover the choice of requests, and nothing else: not the judge's mistakes, and not "
    "requests of other kinds. No page shows that the model is safe."
)


@dataclass(frozen=True)
class Missing:
    """A part that the page does not have: its id, what is not known, and what would tell."""

    name: str
    what: str
    command: str


_ALL = (
    Missing(
        "objectives",
        "what the patch does for harmful and harmless requests and for questions",
        "patchc evaluate MODEL --patch PATCH --harmful H --harmless S --utility U --json",
    ),
    Missing("fit", "how its scales were fitted", "patchc fix, or patchc fit (its .fit.jsonl)"),
    Missing(
        "landscape",
        "how far the weights may drift before refusals are lost",
        "patchc landscape MODEL --patch PATCH -o landscape.jsonl",
    ),
    Missing(
        "turns",
        "what is forgotten when the next patch comes on top",
        "patchc evaluate MODEL --turns PATCH NEXT --json",
    ),
    Missing(
        "replies",
        "which replies changed, one by one",
        "patchc evaluate MODEL --patch PATCH -o results.jsonl",
    ),
)


def missing_parts(sections: Sequence[Section]) -> list[Missing]:
    """The parts that are not among a page's sections."""
    names = {section.name for section in sections}
    return [one for one in _ALL if one.name not in names]


def unknown_section(missing: Sequence[Missing]) -> Section:
    """List what is not known, and the commands that would tell."""
    rows = [((one.what,), (Code(one.command),)) for one in missing]
    table = [Table("Not given", ("not known", "what would tell"), rows)] if rows else []
    return Section("unknown", "What is not known", [*table, Text((_ALWAYS,))])
