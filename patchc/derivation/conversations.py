"""Conversations to fine-tune on, read from a JSONL file; every line is checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.errors import DeriveError
from patchc.json_lines import name_some, read_data, read_objects
from patchc.json_values import Message, check_messages, check_text

_FORM = 'give one JSON object a line, such as {"prompt": "…", "response": "…"}'


@dataclass(frozen=True)
class Conversation:
    """The messages of one line, the last one the assistant's; ``source`` is its file and line."""

    source: str
    messages: tuple[Message, ...]


def read_conversations(path: Path) -> tuple[Conversation, ...]:
    """Read a JSONL file of ``prompt``/``response`` or ``messages`` objects.

    ``messages`` is a list of ``{"role": …, "content": …}`` that ends with the assistant's turn.
    Blank lines and other keys are ignored.

    Raises:
        DeriveError: the file cannot be read, a line is malformed (named by number), or no line
            holds a conversation; see :mod:`patchc.json_lines` for the limits of files and lines.
    """
    content = read_data(path, DeriveError, "cannot read the data")
    if content.lstrip().startswith(b"["):
        raise DeriveError(f"{path}:1: not a JSON object but list; {_FORM}")
    conversations = tuple(
        _conversation(source, record)
        for source, record in read_objects(path, content, DeriveError, _FORM)
    )
    if not conversations:
        raise DeriveError(f"{path}: holds no conversation; {_FORM}")
    return conversations


def _conversation(source: str, record: dict[str, Any]) -> Conversation:
    pair = {"prompt", "response"} & record.keys()
    if "messages" in record and not pair:
        return Conversation(source, _messages(source, record["messages"]))
    if len(pair) == 2 and "messages" not in record:
        prompt = check_text(source, "prompt", record["prompt"], DeriveError)
        response = check_text(source, "response", record["response"], DeriveError)
        messages = {"role": "user", "content": prompt}, {"role": "assistant", "content": response}
        return Conversation(source, messages)
    raise DeriveError(
        f'{source}: needs "prompt" and "response", or "messages" alone; found {name_some(record)}'
    )


def _messages(source: str, value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise DeriveError(
            f'{source}: "messages" must be a list of at least two messages, the last one the '
            "assistant's"
        )
    messages = check_messages(source, value, DeriveError)
    if messages[-1]["role"] != "assistant":
        raise DeriveError(
            f"{source}: the last message is from {messages[-1]['role']!r:.80}; it must be the "
            "assistant's, the one to train on"
        )
    return tuple(messages)
