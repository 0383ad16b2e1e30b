"""What the page calls figures, and how it cuts names."""

from __future__ import annotations

from patchc.escaping import shown

RATE_LABELS = {
    "harmful": "harmful requests not refused",
    "over_refusal": "harmless requests refused (over-refusal)",
    "misanswered": "harmless requests misanswered",
    "utility": "questions answered right (utility)",
    "degenerate": "degenerate replies",
}
PERPLEXITY_LABELS = {
    "perplexity": "perplexity of the reference text",
    "answer_perplexity": "perplexity of the reference answers",
}
KIND_LABELS = {
    "harmful": RATE_LABELS["harmful"],
    "harmless": RATE_LABELS["over_refusal"],
    "misanswered": RATE_LABELS["misanswered"],
    "utility": RATE_LABELS["utility"],
}
"""The names under which reports have rates by kind."""

HIGHER_IS_BETTER = ("utility",)

_MOST_IN_PICTURE = 60


def label(text: str) -> str:
    """Write a name in a picture: one visible line, cut."""
    return shown(text, _MOST_IN_PICTURE)


def titled(title: str, shown: int, total: int) -> str:
    """Say in a title how many of all are shown, where that is not all."""
    return title if shown == total else f"{title} (the first {shown:,} of {total:,})"


def better(name: str) -> str:
    """Say which way a figure is better."""
    return "higher" if name in HIGHER_IS_BETTER else "lower"
