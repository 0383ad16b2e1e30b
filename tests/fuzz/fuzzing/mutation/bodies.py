"""Changes bodies of chunks, and makes lengths and final states fit.

SPEC.md, sections 6.1 (rice), 6.2 (additive) and 6.4 (conditional).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from unittest import mock

import conditional_oracle as oracle

from fuzzing.mutation.draws import Draws

_UNREADABLE = (IndexError, ValueError, OverflowError)
_SLOTS = 12


def mutate_bits(body: bytes, draws: Draws) -> bytes:
    """Change a body of no known structure."""
    return draws.plain(body, len(body) + 16)


def mutate_rice(body: bytes, draws: Draws) -> bytes:
    """Change a tile of codec 1: its count, its parameters or its stream, whose length is set."""
    with suppress(*_UNREADABLE):
        return _other_tile(body, 0, 2, draws)
    return mutate_bits(body, draws)


def mutate_additive(body: bytes, draws: Draws) -> bytes:
    """Change a component of codec 2: its number, its tile of positions or its values."""
    with suppress(*_UNREADABLE):
        if draws.chance(0.6):
            return _other_tile(body, 1, 1, draws)
        return body[:1] + mutate_bits(body[1:], draws)
    return mutate_bits(body, draws)


def _other_tile(body: bytes, at: int, parameters: int, draws: Draws) -> bytes:
    """A body in which the tile at byte ``at``, or one after it, is another."""
    while True:
        count, end = _varint(body, at)
        length = 0
        if count:
            length, end = _varint(body, end + parameters)
            if end + length > len(body):
                raise ValueError
        more = end + length < len(body) and parameters == 2
        if not more or draws.chance(0.5):
            break
        at = end + length
    start, stream, rest = body[:at], body[end : end + length], body[end + length :]
    chosen = list(body[end - parameters - 1 : end - 1]) if count else []
    chosen = [draws.randrange(64) if draws.chance(0.3) else one for one in chosen]
    chosen = (chosen + [draws.randrange(16)] * parameters)[:parameters]
    count = draws.number(count, 20) if draws.chance(0.3) else count
    stream = draws.plain(stream, len(stream) + 8)
    size = len(stream) if draws.chance(0.9) else draws.number(len(stream), 35)
    tile = _packed(count) + bytes(chosen) + _packed(size) + stream if count else _packed(0)
    if draws.chance(0.1):
        rest = tile + rest
    return start + tile + rest


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (body[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if body[at - 1] < 0x80:
            return value, at
        if shift > 28:
            raise ValueError


def _packed(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class _Recorder(oracle.Coder):
    """Reads a stream, and notes all that it gives."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.given: list[tuple[int, ...]] = []

    def raw(self, k: int) -> int:
        value = super().raw(k)
        if k <= 32:  # more are read in two
            self.given.append((value, k))
        return value

    def symbol(self, table: list[tuple[int, int]]) -> int:
        symbol = super().symbol(table)
        first, count = table[symbol]
        self.given.append((first, count, symbol))
        return symbol


def mutate_conditional(body: bytes, draws: Draws, **chunk: Any) -> bytes:
    """Change one thing that a body of codec 3 gives, or its bits; then let it end as it must.

    ``chunk`` is what :class:`conditional_oracle.Chunk` is told beside the body.
    """
    given = _given(body, chunk)
    if not given or draws.chance(0.3):
        return repair_conditional(mutate_bits(body, draws), **chunk)
    at = draws.place(given)
    same = [one for one in given if len(one) == len(given[at])]
    if len(given[at]) == 2 and draws.chance(0.7):
        value, bits = given[at]
        given[at] = draws.number(value, bits) if bits else 0, bits
    else:
        given[at] = draws.choice(same)
    return repair_conditional(_pushed(given), **chunk)


def repair_conditional(body: bytes, **chunk: Any) -> bytes:
    """A body of codec 3 that gives what this one gives, and then ends as a body must."""
    given = _given(body, chunk)
    return _pushed(given) if given else body


def _given(body: bytes, chunk: dict[str, Any]) -> list[tuple[int, ...]]:
    """What a body gives, up to where it breaks a rule."""
    made: list[_Recorder] = []

    def coder(one: bytes) -> _Recorder:
        made.append(_Recorder(one))
        return made[-1]

    with mock.patch.object(oracle, "Coder", coder), suppress(oracle.CorruptError, AssertionError):
        oracle.Chunk(body, **chunk)
    return made[-1].given if made else []


def _pushed(given: list[tuple[int, ...]]) -> bytes:
    """The stream that gives these values, by 6.4.1 backwards."""
    x, words = 1, []
    for one in reversed(given):
        if len(one) == 2:
            value, bits = one
            if x >> (64 - bits):
                words.append(x & 0xFFFFFFFF)
                x >>= 32
            x = x << bits | value
            continue
        first, count, _ = one
        if count == 1 << _SLOTS:
            continue
        if x >> (64 - _SLOTS) >= count:
            words.append(x & 0xFFFFFFFF)
            x >>= 32
        x = (x // count << _SLOTS) + first + x % count
    state = x.to_bytes((x.bit_length() + 7) // 8, "little")
    return state + b"".join(word.to_bytes(4, "little") for word in reversed(words))
