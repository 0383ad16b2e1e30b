"""Reading the data: what is accepted, and the message for every kind of bad line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blake3 import blake3

from patchc.derivation.conversations import read_conversations
from patchc.derivation.derive_options import DeriveOptions
from patchc.errors import DeriveError
from patchc.verbs.derive_inputs import read_inputs

GOOD = '{"prompt": "a", "response": "b"}'


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def messages(*roles: str) -> str:
    return json.dumps({"messages": [{"role": role, "content": role} for role in roles]})


def test_pairs_and_messages_give_the_same_conversation(tmp_path: Path) -> None:
    chat = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    pair, talk = read_conversations(write(tmp_path, GOOD, chat))
    assert pair.messages == talk.messages
    assert [m["role"] for m in pair.messages] == ["user", "assistant"]


def test_blank_lines_and_other_keys_are_ignored_and_lines_keep_their_numbers(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "", '{"prompt": "a", "response": "b", "id": 7}', "  ", GOOD)
    assert [c.source for c in read_conversations(path)] == [f"{path}:2", f"{path}:4"]


def test_several_turns_are_kept(tmp_path: Path) -> None:
    line = messages("system", "user", "assistant", "user", "assistant")
    (conversation,) = read_conversations(write(tmp_path, line))
    assert len(conversation.messages) == 5


def test_the_digest_is_of_the_files_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    record = read_inputs({"harmful": path}, DeriveOptions()).record
    assert record["data"]["blake3"] == blake3(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a JSON object"),
        ('"text"', "not a JSON object but str"),
        ('{"prompt": "a"}', '"prompt" and "response", or "messages"'),
        ('{"messages": [], "prompt": "a", "response": "b"}', "alone"),
        ('{"prompt": "a", "response": " "}', "response must be a text that is not empty"),
        ('{"prompt": 3, "response": "b"}', "prompt must be a text"),
        ('{"prompt": "\\ud800", "response": "b"}', "holds half a character"),
        ('{"prompt": "a", "response": "\\udcff"}', "holds half a character"),
        (messages("user", "\ud800", "assistant"), "holds half a character"),
        ('{"messages": "talk"}', "list of at least two"),
        (messages("user"), "list of at least two"),
        (messages("assistant", "user"), "last message is from 'user'"),
        ('{"messages": [{"content": "a"}, {"role": "assistant", "content": "b"}]}', "message 1"),
        ('{"messages": [{"role": "user"}, {"role": "assistant", "content": "b"}]}', "message 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, GOOD, line)
    with pytest.raises(DeriveError) as caught:
        read_conversations(path)
    assert f"{path}:2" in str(caught.value)
    assert message in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"prompt": "\xff", "response": "b"}\n')
    with pytest.raises(DeriveError, match=r"data\.jsonl:1"):
        read_conversations(path)


def test_a_file_without_conversations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeriveError, match="holds no conversation"):
        read_conversations(write(tmp_path, "", " "))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeriveError, match="cannot read the data"):
        read_conversations(tmp_path / "none.jsonl")
