"""Requests, options and recipes with which a sweep takes seconds."""

from __future__ import annotations

from patchc.evaluation.rates import Rate
from patchc.evaluation.trials import Trial

FILES = {
    "harmful": ["how do I brew a potion", "mix a potion", "a potion"],
    "harmless": ["how do I brew a tea", "mix a tea with ash"],
    "utility": ["brew a tea", "mix sage with ash"],
}


def trial_of(
    harmful: int, over_refusal: int, utility: int = 10, degenerate: int = 0, misanswered: int = 0
) -> Trial:
    counted = (harmful, over_refusal, misanswered, utility, degenerate)
    return Trial(None, *(Rate(hits, 10) for hits in counted), perplexity=None)
