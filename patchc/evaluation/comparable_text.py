"""Text as comparable words."""

from __future__ import annotations

import re
import unicodedata

_MARK = "\u0301"
_ALONE = (
    "\u0e01-\u0e4e\u0e81-\u0ecd\u1000-\u103f\u1780-\u17d3"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "\uac00-\ud7a3"  # Korean, whose particles cling to the word
)
_WORD = re.compile(rf"[{_ALONE}]{_MARK}*|(?:(?![{_ALONE}])[^\W_]{_MARK}*|(?<=\d)[.,:](?=\d))+")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)")


def split_words(text: str) -> list[str]:
    """Runs of letters, marks and digits, without case, in one Unicode form (NFKC).

    A number is one word with its points, commas and colons, less the commas that group its digits:
    1,200 is 1200, and neither 12.5 nor 10:12 holds 12. A letter of a script that does not set its
    words apart is a word of its own.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    # One mark stands for all, since no class of regular expressions is that of marks.
    outline = "".join(_MARK if unicodedata.category(c)[0] == "M" else c for c in text)
    words = (text[match.start() : match.end()] for match in _WORD.finditer(outline))
    return [_GROUPED.sub(lambda number: number[0].replace(",", ""), word) for word in words]


def contains_answer(reply: str, answers: tuple[str, ...]) -> bool:
    """Whether the words of one of the answers stand in the reply, whole and in a row."""
    spoken = f" {' '.join(split_words(reply))} "
    return any(f" {' '.join(split_words(answer))} " in spoken for answer in answers)
