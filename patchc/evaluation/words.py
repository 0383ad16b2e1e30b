"""Text as comparable words."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")


def split_words(text: str) -> list[str]:
    """Runs of letters and digits, without case, in one Unicode form (NFKC)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def contains_answer(reply: str, answers: tuple[str, ...]) -> bool:
    """Whether the words of one of the answers stand in the reply, whole and in a row."""
    spoken = f" {' '.join(split_words(reply))} "
    return any(f" {' '.join(split_words(answer))} " in spoken for answer in answers)
