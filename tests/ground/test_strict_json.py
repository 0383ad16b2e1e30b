"""JSON of strangers: what is one value with one meaning is read, anything else is refused."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchc.strict_json import MOST_NESTED, parse_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_reads_what_json_writes(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b'{"a": 1} 2', "Extra data"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"[1e999]", "1e999 is beyond every number"),
        (b"18446744073709551616", "takes more than 64 bits"),
        (b"-9223372036854775809", "takes more than 64 bits"),
        (b"1" + b"0" * 10_000, "takes more than 64 bits"),
        (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' is given twice"),
        (b'[{"b": {"a": 1, "a": 1}}]', "the key 'a' is given twice"),
        (b'{"a": 1, "\\u0061": 2}', "the key 'a' is given twice"),
        (b'["\\ud83d"]', "half a character"),
        (b'{"\\ude00": 1}', "half a character"),
        (b'{"a": "\xff"}', "not UTF-8 text (byte 7)"),
        (b"\xef\xbb\xbf1", "BOM"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 deep"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested more than 64 deep"),
        (b"[" * 1_000_000, "nested more than 64 deep"),
    ],
)
def test_refuses_by_reason(text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as told:
        parse_json(text)
    assert len(str(told.value)) < 200
    assert "\n" not in str(told.value)


def test_limits_themselves_are_read():
    deepest = b"[" * MOST_NESTED + b"]" * MOST_NESTED
    assert json.dumps(parse_json(deepest)).encode() == deepest
    assert parse_json("[18446744073709551615, -9223372036854775808]") == [2**64 - 1, -(2**63)]
    assert parse_json(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
