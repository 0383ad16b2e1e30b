"""Changes JSON texts so that most of them stay JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fuzzing.mutation.draws import NUMBERS, Draws

TEXTS = (
    "", " ", "\0", "\n", "\ufeff", "a", "A" * 300, "é", "\U0001f600", "\u202e", "\x1b[31m", "..",
    "../x", "/", "con", "nul.safetensors", "0", "null", "[link](x)", "[bold]", "%s", "{0}", "$(x)",
)  # fmt: skip

_LITERALS = (
    "null", "true", "false", "[]", "{}", '""', "-0", "1e5", "1E-400", "1e308", "1e999", "-1e999",
    "NaN", "Infinity", "-Infinity", "0.1", "01", "1.", '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"',
    '"\\ud83d\\ude00"', "9" * 30, "9" * 5000, "-" + "9" * 20, "[" * 70 + "]" * 70,
    "[" * 3000 + "]" * 3000, '{"a":' * 70 + "1" + "}" * 70, "'x'", "/**/1", "\t1\r\n", "\x0b1",
)  # fmt: skip


class _Raw(str):
    """Text that is written as it stands."""


class _Pairs(list[tuple[str, Any]]):
    """An object, which may have a key twice."""


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change one JSON value in a text, or the text's bytes."""
    if draws.chance(0.1):
        return draws.plain(data, len(data) + 64)
    with suppress(ValueError, RecursionError):
        value = json.loads(data, object_pairs_hook=_Pairs)
        for _ in range(draws.choice((1, 1, 1, 2, 4))):
            value = _other(value, draws)
        return _written(value).encode("utf-8", "surrogatepass")
    return draws.plain(data, len(data) + 64)


def _other(value: Any, draws: Draws) -> Any:
    """A value of which some part has changed; the value given may change as well."""
    holders = list(_holders(value))
    if not holders or draws.chance(0.05):
        return _new(value, draws)
    holder = draws.choice(holders)
    at = draws.place(holder)
    how = draws.randrange(10)
    if how == 0:
        del holder[at]
    elif how == 1:
        holder.insert(draws.randint(0, len(holder)), holder[at])
    elif how == 2:
        other = draws.place(holder)
        holder[at], holder[other] = holder[other], holder[at]
    elif how == 3 and isinstance(holder, _Pairs):
        key = draws.choice((*TEXTS, holder[draws.place(holder)][0]))
        holder[at] = key, holder[at][1]
    elif isinstance(holder, _Pairs):
        key, old = holder[at]
        holder[at] = key, _new(old, draws)
    else:
        holder[at] = _new(holder[at], draws)
    return value


def _holders(value: Any) -> Iterator[list[Any]]:
    """All objects and arrays in a value that are not empty."""
    if isinstance(value, _Pairs):
        inner = [one for _, one in value]
    elif isinstance(value, list):
        inner = value
    else:
        return
    if value:
        yield value
    for one in inner:
        yield from _holders(one)


def _new(old: Any, draws: Draws) -> Any:
    how = draws.randrange(8)
    if isinstance(old, str) and not isinstance(old, _Raw) and how < 5:
        return _text(old, draws)
    if isinstance(old, int) and how < 5:
        return draws.number(abs(int(old))) * draws.choice((1, 1, 1, -1))
    if isinstance(old, list) and how < 2:
        return old * draws.choice((2, 3, 50))
    if how == 5:
        return draws.choice(TEXTS)
    if how == 6:
        return draws.choice(NUMBERS)
    return _Raw(draws.choice(_LITERALS))


def _text(old: str, draws: Draws) -> str:
    how = draws.randrange(4)
    if how == 0:
        return draws.choice(TEXTS)
    at = draws.randint(0, len(old))
    if how == 1:
        return old[:at] + draws.choice(TEXTS) + old[at:]
    if how == 2:
        return old[:at] + old[at + 1 :]
    return old * draws.choice((2, 10))


def _written(value: Any) -> str:
    if isinstance(value, _Raw):
        return value
    if isinstance(value, _Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{_written(one)}" for key, one in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
