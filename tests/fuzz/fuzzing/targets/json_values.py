"""The strict reader of JSON."""

from __future__ import annotations

import json

from fuzzing.mutation import json_text
from fuzzing.target import BrokenPromiseError, Target, expect
from patchc.strict_json import parse_json


def read(data: bytes) -> None:
    """Read a value; what is taken can be written and read again."""
    try:
        value = parse_json(data)
    except ValueError as refusal:
        expect("\n" not in str(refusal) and len(str(refusal)) < 500, "the message is long")
        raise
    try:
        kept = parse_json(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except ValueError as error:
        raise BrokenPromiseError("a value that was read cannot be written and read") from error
    expect(kept == value, "a value does not survive")


TARGET = Target(
    "json_values",
    read,
    json_text.mutate,
    ("patchc.strict_json", "patchc.json_values"),
    executions=4000,
    most_bytes=1 << 12,
    refusals=(ValueError,),
)
