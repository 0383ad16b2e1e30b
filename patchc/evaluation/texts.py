"""Texts of replies: words, accepted answers, those that are empty or loop, and how one is shown."""

from __future__ import annotations

import re
import unicodedata

_ACCENT = "\u0301"
_ALONE = (
    "\u0e01-\u0e4e\u0e81-\u0ecd\u1000-\u103f\u1780-\u17d3"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "\uac00-\ud7a3"  # Korean, whose particles cling to the word
)
_WORD = re.compile(rf"[{_ALONE}]{_ACCENT}*|(?:(?![{_ALONE}])[^\W_]{_ACCENT}*|(?<=\d)[.,:](?=\d))+")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)")
_PIECE = re.compile(r"[^\W_]+|\S")
_RULE = re.compile(r"^[ \t]*([-=_*~#+─━═])\1{2,}[ \t]*$", re.MULTILINE)
_LONGEST_WORD = 24
_LONGEST_UNIT = 6
_REPEATS = 4
_SHORTEST_LOOP = 8
_ENOUGH_PIECES = 24
_FEWEST_DISTINCT = 0.2
_LONGEST_SHOWN = 80


def split_words(text: str) -> list[str]:
    """Return the runs of letters, accents and digits, without case, in one Unicode form (NFKC).

    A number is one word with its points, commas and colons, but without the commas that group its
    digits: 1,200 is 1200, and neither 12.5 nor 10:12 holds 12. In scripts without spaces, each
    letter is a word.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    # Regular expressions have no class for accents, so one accent stands for all.
    outline = "".join(_ACCENT if unicodedata.category(c)[0] == "M" else c for c in text)
    words = (text[match.start() : match.end()] for match in _WORD.finditer(outline))
    return [_GROUPED.sub(lambda number: number[0].replace(",", ""), word) for word in words]


def contains_answer(reply: str, answers: tuple[str, ...]) -> bool:
    """Return whether the reply holds the words of one of the answers, whole and in a row."""
    spoken = f" {' '.join(split_words(reply))} "
    return any(f" {' '.join(split_words(answer))} " in spoken for answer in answers)


def is_degenerate(reply: str) -> bool:
    """Return whether a reply is empty, or repeats itself over and over.

    A reply is split into pieces: words, numbers and single visible signs. A "word" of more than 24
    characters (a script without spaces, or laughter) is split into its characters. Lines with
    nothing but a rule (``=====``) beside other text do not count. A reply is degenerate if

    * it has no piece, or
    * it ends with one to six pieces, repeated at least four times in a row, eight pieces or more
      (``no no no no no no no no``, ``stir it . stir it . stir it . stir it .``), or
    * it has at least 24 pieces and fewer than one in five is new.

    These limits are our own. A refusal or a merely wrong answer is not degenerate.
    """
    pieces = _pieces(_RULE.sub("", reply)) or _pieces(reply)
    if not pieces:
        return True
    if len(pieces) >= _ENOUGH_PIECES and len(set(pieces)) < _FEWEST_DISTINCT * len(pieces):
        return True
    return any(
        _periodic_tail(pieces, unit) >= max(_REPEATS * unit, _SHORTEST_LOOP)
        for unit in range(1, _LONGEST_UNIT + 1)
    )


def shorten(text: str) -> str:
    """Return the beginning of a text as one line for a message, without control characters."""
    line = "".join(char for char in " ".join(text.split()) if char.isprintable())
    return line if len(line) <= _LONGEST_SHOWN else line[: _LONGEST_SHOWN - 1].rstrip() + "…"


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for word in filter(str.isprintable, _PIECE.findall(text)):
        pieces += word if len(word) > _LONGEST_WORD and not word.isdecimal() else [word]
    return pieces


def _periodic_tail(pieces: list[str], unit: int) -> int:
    """Return the length of the longest tail that repeats itself every ``unit`` pieces."""
    length = min(unit, len(pieces))
    while length < len(pieces) and pieces[-length - 1] == pieces[unit - length - 1]:
        length += 1
    return length
