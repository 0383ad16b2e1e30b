"""Questions with choices, of which one is right: what a file may state."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Any

from patchc.errors import EvaluateError
from patchc.json_values import check_text

MOST_CHOICES = len(ascii_uppercase)
_SHOWN = 80


def read_choices(source: str, values: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Read the choices of a question, without outer white space, and the right one.

    ``choices`` is a list of 2 to 26 different texts. ``answer`` is a whole number, the place of the
    right choice counted from 0; or its text; or its letter, A for the first.

    Raises:
        EvaluateError: either is missing or something else, or a letter is also the text of another
            choice.
    """
    given = values["choices"]
    if not isinstance(given, list) or not 2 <= len(given) <= MOST_CHOICES:
        raise EvaluateError(
            f'{source}: "choices" must be a list of 2 to {MOST_CHOICES} texts; JSON can hold one, '
            "CSV cannot"
        )
    choices = tuple(
        check_text(source, f"choice {place}", choice, EvaluateError).strip()
        for place, choice in enumerate(given)
    )
    for place, choice in enumerate(choices):
        if (first := choices.index(choice)) < place:
            raise EvaluateError(f"{source}: choices {first} and {place} are the same text")
    if "answer" not in values or "answers" in values:
        raise EvaluateError(f'{source}: a question with "choices" needs "answer" alone')
    return choices, choices[_place(source, choices, values["answer"])]


def _place(source: str, choices: tuple[str, ...], answer: Any) -> int:
    if type(answer) is int:
        if 0 <= answer < len(choices):
            return answer
        raise EvaluateError(
            f"{source}: answer is {answer}; as a number it is the right choice's place, from 0 to "
            f"{len(choices) - 1}"
        )
    text = answer.strip() if isinstance(answer, str) else None
    letters = ascii_uppercase[: len(choices)]
    found = {names.index(text) for names in (choices, tuple(letters)) if text in names}
    if len(found) > 1:
        raise EvaluateError(
            f"{source}: answer {text!r} is the text of one choice and the letter of another; give "
            "the right choice's place as a number, from 0"
        )
    if not found:
        raise EvaluateError(
            f"{source}: answer {answer!r:.{_SHOWN}} is none of the choices; give the right one's "
            "place (a whole number, from 0), its letter or its text"
        )
    return found.pop()
