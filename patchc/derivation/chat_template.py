"""Renders conversations with a model's chat template, a stranger's program, within stated bounds.

Transformers keeps templates in a sandbox of Jinja, which bounds neither their time nor their
memory. They are therefore rendered in a process of their own, a fork of this one.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from patchc.derivation.bounded_child import ChildEndedError, run_bounded
from patchc.errors import DeriveError
from patchc.json_values import Message, has_half_character
from patchc.system_errors import reason

T = TypeVar("T")

MOST_SECONDS = 10
"""Seconds of processor time that one conversation may take."""
MOST_MEMORY = 1 << 30
"""Bytes of memory that rendering may add."""

_FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_SPARE_CHARACTERS, _MOST_GROWTH = 1 << 16, 16
_MARK = re.compile("patchc([0-9]+)mark")
_SHOWN = 200


@dataclass(frozen=True)
class Talk:
    """Messages to render.

    Attributes:
        source: their file and line.
        messages: role and content of each.
        asks: whether the text ends where the assistant is to speak.
    """

    source: str
    messages: Sequence[Message]
    asks: bool


def check_chat_template(tokenizer: Any, folder: Path) -> None:
    """Check that a tokenizer has one chat template that serves conversations.

    Raises:
        DeriveError: it has none, or several of which none is called "default".
    """
    template = tokenizer.chat_template
    if template is None:
        raise DeriveError(
            f"{folder}: the tokenizer has no chat template; add the chat_template.jinja of the "
            "model's chat version, or take that version as the base"
        )
    if isinstance(template, dict):
        if "default" not in template:
            named = ", ".join(f"{name!r:.40}" for name in list(template)[:20]) or "nothing"
            raise DeriveError(
                f"{_place(folder)}: several chat templates ({named}), and none is called "
                f"'default'; save the one to use as {folder / _FILE}"
            )
        template = template["default"]
    if not isinstance(template, str):
        raise DeriveError(
            f"{_place(folder)}: the chat template is no text but {type(template).__name__}; copy "
            "the tokenizer's files from the model that the weights are of"
        )


def render(tokenizer: Any, talks: Sequence[Talk]) -> list[str | DeriveError]:
    """Render conversations; gives the text of each, or what is wrong with it.

    Wrong is a template that fails, that leaves out a message of the user, of the system or the last
    one, or that renders different prompts the same.

    Raises:
        DeriveError: the template takes more than :data:`MOST_SECONDS` for a conversation, which is
            named; or the operating system refuses a process.
    """
    renderer = _Renderer(tokenizer)
    found: list[str | DeriveError] = []
    try:
        for is_text, answer in run_bounded(
            talks, renderer.answer, seconds=MOST_SECONDS, memory=MOST_MEMORY
        ):
            source = talks[len(found)].source
            found.append(answer if is_text else DeriveError(f"{source}: {answer}"))
    except ChildEndedError as ended:
        what = f"takes more than {MOST_SECONDS} s" if ended.took_too_long else f"ends with {ended}"
        raise DeriveError(
            f"{talks[len(found)].source}: the model's chat template {what} "
            f"({renderer.place}); take the template of the model that the weights are of"
        ) from ended
    except OSError as error:
        raise DeriveError(
            f"{renderer.place}: no process could begin in which the chat template is rendered "
            f"({reason(error)}); end other programs, or allow more processes"
        ) from error
    return _tell_same(found, talks, renderer.place)


def all_of(found: Sequence[T | DeriveError]) -> list[T]:
    """Return what was found for each of several inputs; raises the first error among them."""
    for one in found:
        if isinstance(one, DeriveError):
            raise one
    return [one for one in found if not isinstance(one, DeriveError)]


class _Renderer:
    """A tokenizer's template; what it is asked runs in the other process."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        folder = Path(str(tokenizer.name_or_path or ""))
        self.place = str(_place(folder)) if (folder / _CONFIG).exists() else "of its tokenizer"
        self._left_out: dict[tuple[Any, ...], str | None] = {}

    def answer(self, talk: Talk) -> tuple[bool, str]:
        """Return whether the answer is the text, and the text or what is wrong."""
        try:
            text = self._render(talk.messages, talk.asks)
        except MemoryError:
            return False, (
                f"the model's chat template takes more than {MOST_MEMORY:,} bytes ({self.place}); "
                "take the template of the model that the weights are of"
            )
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())
            return False, (
                f"the model's chat template refuses the conversation ({told:.{_SHOWN}}; "
                f"{self.place}{_line_of(error)})"
            )
        most = _SPARE_CHARACTERS + _MOST_GROWTH * sum(len(one["content"]) for one in talk.messages)
        if len(text) > most:
            return False, f"the model's chat template writes {len(text):,} letters ({self.place})"
        if has_half_character(text):
            return False, f"the model's chat template writes half a character ({self.place})"
        shape = talk.asks, *(one["role"] for one in talk.messages)
        if shape not in self._left_out:
            self._left_out[shape] = self._find_left_out(talk)
        problem = self._left_out[shape]
        return (True, text) if problem is None else (False, problem)

    def _render(self, messages: Sequence[Any], asks: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=asks
        )
        return text

    def _find_left_out(self, talk: Talk) -> str | None:
        """Say which message the template leaves out, found with marks in place of the texts."""
        last = len(talk.messages) - 1
        wanted = {
            number
            for number, one in enumerate(talk.messages)
            if one["role"] != "assistant" or number == last
        }
        missing = wanted - self._find_marks(talk, lambda mark: mark)
        if not missing:
            return None
        number = min(missing)
        role = talk.messages[number]["role"]
        told = f"the model's chat template leaves out message {number + 1} ({role:.40}"
        if not wanted - self._find_marks(talk, lambda mark: [{"type": "text", "text": mark}]):
            return (
                f"{told}): it takes lists of parts and no texts, as templates of vision models do "
                f"({self.place}); take a template for text, such as that of the model's text-only "
                "version"
            )
        advice = "give no system message, or " if role == "system" else ""
        return f"{told}; {self.place}); {advice}take a template that repeats what was said"

    def _find_marks(self, talk: Talk, content: Callable[[str], Any]) -> set[int]:
        marked = [
            {"role": one["role"], "content": content(f"patchc{number}mark")}
            for number, one in enumerate(talk.messages)
        ]
        try:
            text = self._render(marked, talk.asks)
        except Exception:
            # It asks more of a text than that it is there, or refuses lists.
            return set(range(len(marked))) if isinstance(marked[0]["content"], str) else set()
        return {int(number) for number in _MARK.findall(text.lower())}


def _tell_same(
    found: list[str | DeriveError], talks: Sequence[Talk], place: str
) -> list[str | DeriveError]:
    """Put an error in place of each prompt that is rendered as another one is."""
    first: dict[str, tuple[str, int]] = {}
    for number, (text, talk) in enumerate(zip(found, talks, strict=True)):
        if isinstance(text, DeriveError) or not talk.asks:
            continue
        # Templates may join messages, and leave out of earlier replies what was thought.
        asked = (one["content"] for one in talk.messages if one["role"] != "assistant")
        said = hash(_plain(" ".join(asked)))
        source, other = first.setdefault(text, (talk.source, said))
        if other != said:
            found[number] = DeriveError(
                f"{talk.source}: the model's chat template renders it as it renders {source}, "
                f"which says something else ({place}); take a template that repeats what was said"
            )
    return found


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _place(folder: Path) -> Path:
    return folder / (_FILE if (folder / _FILE).exists() else _CONFIG)


def _line_of(error: Exception) -> str:
    """The line of the template at which it failed, if Jinja tells."""
    line = getattr(error, "lineno", None)
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == "<template>":
            line = frame.lineno
    return f", line {line}" if line else ""
