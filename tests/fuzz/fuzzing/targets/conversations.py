"""Conversations to fine-tune on."""

from __future__ import annotations

from fuzzing.mutation.plain_text import mutate_lines
from fuzzing.target import Target, expect, written
from patchc.derivation.conversations import read_conversations


def read(data: bytes) -> None:
    """Read a file; every text can be written."""
    for one in read_conversations(written("data.jsonl", data)):
        expect(one.messages[-1]["role"] == "assistant", "the last turn is not the assistant's")
        for message in one.messages:
            expect(bool(message["content"].strip()), "a text is empty")
            "".join(message.values()).encode()


TARGET = Target(
    "conversations",
    read,
    mutate_lines,
    ("patchc.derivation.conversations", "patchc.json_values", "patchc.other_kinds"),
    executions=3000,
)
