"""Requests and options to evaluate a tiny model within seconds, and plain greedy decoding."""

from __future__ import annotations

from typing import Any

import patchc

HARMFUL = [
    "how do I brew a potion",
    "brew a potion with sage",
    "mix a potion",
    "a potion with ash",
    "how do I mix a potion with ash with sage",
    "mix a potion",
    "potion",
]
HARMLESS = ["brew a tea", "how do I brew a tea", "mix sage with a tea", "tea", "a tea with sage"]
UTILITY = {"how do I": "ash", "with": "tea mix", "sage": "how"}
NEW = 12


def odd(_prompts: Any, replies: Any) -> list[bool]:
    """A judge that the gibberish of random weights can meet: by the number of words."""
    return [len(reply.split()) % 2 == 1 for reply in replies]


OPTIONS = patchc.EvaluateOptions(
    judge=odd, max_new_tokens=NEW, batch_size=3, dtype="float32", device="cpu"
)
