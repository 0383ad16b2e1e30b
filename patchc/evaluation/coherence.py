"""Replies that say nothing: empty, or caught in a loop."""

from __future__ import annotations

import re

_PIECE = re.compile(r"[^\W_]+|\S")
_RULE = re.compile(r"^[ \t]*([-=_*~#+─━═])\1{2,}[ \t]*$", re.MULTILINE)
_LONGEST_WORD = 24
_LONGEST_UNIT = 6
_REPEATS = 4
_SHORTEST_LOOP = 8
_ENOUGH_PIECES = 24
_FEWEST_DISTINCT = 0.2


def is_degenerate(reply: str) -> bool:
    """Whether a reply is empty, or says the same over and over.

    A reply is taken as pieces: words, numbers and single signs that can be seen; a "word" of more
    than 24 characters (a script without spaces, or laughter) as its characters. Lines that are
    nothing but a rule (``=====``) beside other text do not count. It is degenerate where

    * it has no piece, or
    * it ends with one to six pieces said at least four times in a row, over at least eight pieces
      (``no no no no no no no no``, ``stir it . stir it . stir it . stir it .``), or
    * it has at least 24 pieces and fewer than one in five is new.

    These limits are our own. A refusal or an answer that is merely wrong is not degenerate.
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


def _pieces(text: str) -> list[str]:
    words = (word for word in _PIECE.findall(text) if word.isprintable())
    return [piece for word in words for piece in _split(word)]


def _split(word: str) -> list[str]:
    return list(word) if len(word) > _LONGEST_WORD and not word.isdecimal() else [word]


def _periodic_tail(pieces: list[str], unit: int) -> int:
    """Length of the longest end of ``pieces`` that repeats itself every ``unit`` pieces."""
    length = min(unit, len(pieces))
    while length < len(pieces) and pieces[-length - 1] == pieces[unit - length - 1]:
        length += 1
    return length
