"""Files of data that are no data: both readers name the file, the line and what to do."""

from __future__ import annotations

import gzip
import json
import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest

from patchc.derivation.conversations import read_conversations
from patchc.errors import PatchcError
from patchc.evaluation.replies_from_files import read_replies
from patchc.evaluation.requests import RequestSets, read_requests

Read = Callable[[Path], list[tuple[dict[str, str], ...]]]


def _conversations(path: Path) -> list[tuple[dict[str, str], ...]]:
    return [one.messages[:-1] for one in read_conversations(path)]


def _requests(path: Path) -> list[tuple[dict[str, str], ...]]:
    return [one.messages for one in read_requests(path, "harmful")]


both = pytest.mark.parametrize("read", [_conversations, _requests])
LINE = {"prompt": "brew a potion", "response": "mix ash"}
TEXT = json.dumps(LINE)
PROMPT = ({"role": "user", "content": "brew a potion"},)


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    return path


def with_key(value: str) -> str:
    return f'{TEXT[:-1]}, "more": {value}}}'


BAD_SECOND_LINES: dict[str, tuple[str, str]] = {
    "NaN": (with_key("NaN"), "NaN is not JSON"),
    "infinite": (with_key("-Infinity"), "-Infinity is not JSON"),
    "1e999": (with_key("1e999"), "1e999 is beyond every number"),
    "10**30": (with_key("1" + "0" * 30), "takes more than 64 bits"),
    "100,000 digits": (with_key("1" * 100_000), "takes more than 64 bits"),
    "a key twice": (with_key('1, "prompt": "mix a tea"'), "the key 'prompt' is given twice"),
    "nested 65 deep": (with_key("[" * 65 + "]" * 65), "nested more than 64 deep"),
    "nested 100,000 deep": (with_key("[" * 100_000 + "]" * 100_000), "nested more than 64 deep"),
    "half a character": (with_key('"\\ud83d"'), "half a character"),
    "half a character as a key": (with_key('{"\\udc00": 1}'), "half a character"),
    "16 MiB": (with_key(json.dumps("a" * (1 << 24))), "more than 16,777,216 bytes"),
    "cut": (TEXT[:-4], "not a JSON object"),
    "a control character": (TEXT.replace("ash", "a\x01sh"), "not a JSON object"),
    "a number": ("7", "not a JSON object but int"),
    "NUL": (TEXT.replace("ash", "a\0sh"), "holds a NUL byte"),
}


@both
@pytest.mark.parametrize("name", BAD_SECOND_LINES)
def test_a_bad_line_is_named(tmp_path: Path, read: Read, name: str) -> None:
    line, message = BAD_SECOND_LINES[name]
    path = write(tmp_path, f"{TEXT}\n{line}\n{TEXT}\n".encode())
    with pytest.raises(PatchcError) as caught:
        read(path)
    told = str(caught.value)
    assert told.startswith(f"{path}:2: ")
    assert message in told
    assert len(told) < len(str(path)) + 300
    assert "\n" not in told


@both
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "holds a NUL byte, as UTF-16 text"),
        (f"{TEXT}\n".encode("utf-32-be"), "holds a NUL byte"),
        (gzip.compress(TEXT.encode(), mtime=0), "compressed with gzip"),
        (b"BZh91AY&SY\xff", "compressed with bzip2"),
        (b"\xfd7zXZ\0\0\x04", "compressed with xz"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed with Zstandard"),
        (b"PAR1\x15\0\xff", "a Parquet file"),
        (json.dumps(LINE, indent=1).encode(), "data.jsonl:1: not a JSON object"),
        (b"", "holds no"),
        (b"\n \r\n\xef\xbb\xbf\n", "holds no"),
    ],
)
def test_another_kind_of_file_is_told(
    tmp_path: Path, read: Read, content: bytes, message: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(PatchcError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_list_where_lines_are_expected_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps([LINE], indent=1).encode())
    with pytest.raises(PatchcError, match=r"data\.jsonl:1: not a JSON object but list; give one"):
        read_conversations(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1e999]", "1e999 is beyond every number"),
        ('[{"prompt": "a"}, {"prompt": "b", "prompt": "c"}]', "given twice"),
        ("[" * 70, "nested more than 64 deep|not a JSON list"),
        ('[{"prompt": "a"}, 3]', "item 2: not a JSON object but int"),
    ],
)
def test_a_list_of_requests_is_read_as_strictly(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(PatchcError, match=message):
        read_requests(write(tmp_path, content.encode()), "harmful")


@both
@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_lines_may_end_in_any_way_and_begin_with_a_byte_order_mark(
    tmp_path: Path, read: Read, end: str
) -> None:
    """As files have that were put together of others."""
    content = end.join([f"\ufeff{TEXT}", "", f"\ufeff{TEXT}", ""]).encode()
    assert read(write(tmp_path, content)) == [PROMPT, PROMPT]
    with pytest.raises(PatchcError, match=r"data\.jsonl:4: "):
        read(write(tmp_path, content + b"{"))


@both
def test_a_record_may_hold_a_hundred_thousand_messages(tmp_path: Path, read: Read) -> None:
    roles = ("user", "assistant")
    turns = [{"role": roles[n % 2], "content": "a"} for n in range(100_000)]
    (messages,) = read(write(tmp_path, json.dumps({"messages": turns}).encode()))
    assert len(messages) == 99_999


def test_memory_is_in_proportion_to_the_file(tmp_path: Path) -> None:
    """What is not kept of lines does not add up: a list of lists takes 24 times its bytes."""
    line = with_key(f"[{','.join(['[]'] * 5_000)}]")
    path = write(tmp_path, f"{line}\n".encode() * 40)
    tracemalloc.start()
    read_conversations(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * path.stat().st_size


@both
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, read: Read, kind: str) -> None:
    with _special(tmp_path, kind) as path, pytest.raises(PatchcError, match="a file is needed"):
        read(path)


@contextmanager
def _special(folder: Path, kind: str) -> Iterator[Path]:
    path = folder / "special.jsonl"
    with socket.socket(socket.AF_UNIX) as server, chdir(folder):
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "socket":
            server.bind(path.name)  # its whole path may be too long
        yield Path("/dev/zero") if kind == "device" else path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reply": "\ud83d", "id": 1}, "half a character"),
        ({"reply": ["a"], "id": 1}, 'a text "reply"'),
        ({"reply": "a", "id": 10**30}, "more than 64 bits"),
    ],
)
def test_replies_are_read_as_strictly(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    path = write(tmp_path, f"\n{json.dumps(values)}\n".encode())
    with pytest.raises(PatchcError, match=rf"data\.jsonl:2: .*{message}"):
        read_replies(path, RequestSets((), ()), "model")
