"""Conversations from a JSONL file, every line checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from patchc.errors import DeriveError
from patchc.json_values import has_half_character

Message = dict[str, str]


@dataclass(frozen=True)
class Conversation:
    """The messages of one line, the last one the assistant's; ``source`` is its file and line."""

    source: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class ConversationFile:
    """The conversations of a file, with the BLAKE3 of its bytes in hexadecimal."""

    name: str
    digest: str
    conversations: tuple[Conversation, ...]


def read_conversations(path: Path) -> ConversationFile:
    """Read a JSONL file of ``prompt``/``response`` or ``messages`` objects.

    ``messages`` is a list of ``{"role": …, "content": …}`` that ends with the assistant's turn.
    Blank lines and other keys are ignored.

    Raises:
        DeriveError: the file cannot be read, a line is malformed (named by number), or no line
            holds a conversation.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeriveError(f"{path}: cannot read the data: {error.strerror}") from error
    conversations = tuple(
        _parse(f"{path}:{number}", line)
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip()
    )
    if not conversations:
        raise DeriveError(f"{path}: holds no conversation; give one JSON object a line")
    return ConversationFile(path.name, blake3(content).hexdigest(), conversations)


def _parse(source: str, line: bytes) -> Conversation:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DeriveError(f"{source}: not a JSON object ({error})") from error
    if not isinstance(record, dict):
        raise DeriveError(f"{source}: not a JSON object but {type(record).__name__}")
    pair = {"prompt", "response"} & record.keys()
    if "messages" in record and not pair:
        return Conversation(source, _messages(source, record["messages"]))
    if len(pair) == 2 and "messages" not in record:
        prompt = _text(source, "prompt", record["prompt"])
        response = _text(source, "response", record["response"])
        return Conversation(source, (_message("user", prompt), _message("assistant", response)))
    raise DeriveError(f'{source}: needs "prompt" and "response", or "messages" alone')


def _messages(source: str, value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise DeriveError(f'{source}: "messages" must be a list of at least two messages')
    messages = []
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("role"), str):
            raise DeriveError(f'{source}: message {number} must be an object with a "role"')
        role = _whole(source, f"message {number}: role", entry["role"])
        content = _text(source, f"message {number}: content", entry.get("content"))
        messages.append(_message(role, content))
    if messages[-1]["role"] != "assistant":
        raise DeriveError(
            f"{source}: the last message is from {messages[-1]['role']!r}; it must be the "
            "assistant's, the one to train on"
        )
    return tuple(messages)


def _text(source: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DeriveError(f"{source}: {name} must be a text that is not empty")
    return _whole(source, name, value)


def _whole(source: str, name: str, text: str) -> str:
    if has_half_character(text):
        raise DeriveError(f"{source}: {name} holds half a character (a lone surrogate)")
    return text


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
