"""Files of a model that people read and that no loader does: model cards, and a repository's own.

Receivers edit them, and many tools do not fetch them.
"""

from __future__ import annotations

import re

_LANGUAGE = r"([._-][a-z]{2,4}([._-][a-z]{2,4})?)?"
_CARD = re.compile(
    rf"readme|(readme|model[ _-]?card){_LANGUAGE}\.(md|markdown|rst|txt)|\.git(attributes|ignore)"
)


def is_card(name: str) -> bool:
    """Whether a file, named by its path below the model's folder, is a card, in any language."""
    return bool(_CARD.fullmatch(name.rpartition("/")[2].lower()))
