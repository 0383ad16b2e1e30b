"""Conversations to fine-tune on, read from a JSONL file; every line is checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from patchc.errors import DeriveError, unreadable
from patchc.json_values import Message, check_messages, check_text
from patchc.other_kinds import START_BYTES, other_kind
from patchc.regular_file import read_regular
from patchc.system_errors import reason

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
            holds a conversation.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        message = f"{path}: cannot read the data: {reason(error)}"
        raise unreadable(DeriveError, message, error) from error
    if content and (kind := other_kind(content[:START_BYTES])):
        raise DeriveError(f"{path}: not JSON lines: it is {kind}")
    conversations = tuple(
        _parse(f"{path}:{number}", line)
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip()
    )
    if not conversations:
        raise DeriveError(f"{path}: holds no conversation; {_FORM}")
    return conversations


def _parse(source: str, line: bytes) -> Conversation:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DeriveError(f"{source}: not UTF-8 text; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DeriveError(f"{source}: not a JSON object ({error}); {_FORM}") from error
    if not isinstance(record, dict):
        raise DeriveError(f"{source}: not a JSON object but {type(record).__name__}; {_FORM}")
    pair = {"prompt", "response"} & record.keys()
    if "messages" in record and not pair:
        return Conversation(source, _messages(source, record["messages"]))
    if len(pair) == 2 and "messages" not in record:
        prompt = check_text(source, "prompt", record["prompt"], DeriveError)
        response = check_text(source, "response", record["response"], DeriveError)
        messages = {"role": "user", "content": prompt}, {"role": "assistant", "content": response}
        return Conversation(source, messages)
    raise DeriveError(
        f'{source}: needs "prompt" and "response", or "messages" alone; found '
        f"{', '.join(islice(record, 20)) or 'nothing'}"
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
            f"{source}: the last message is from {messages[-1]['role']!r}; it must be the "
            "assistant's, the one to train on"
        )
    return tuple(messages)
