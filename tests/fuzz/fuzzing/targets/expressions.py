"""Regular expressions over tensor names: the ones that run away, and the ones that are none."""

from __future__ import annotations

from fuzzing.mutation.draws import Draws
from fuzzing.target import Target
from patchc.recipe.expressions import Expression

_NAMES = ("", "a", "ab.a1", "A\nb", "a" * 100, "model." + 3000 * "a" + "!")

_PARTS = (
    b"a", b"b", b"A", b".", b"[ab]", b"[^a]", b"[a-c]", b"[", b"]", b"\\d", b"\\w", b"\\b", b"\\B",
    b"\\1", b"\\", b"^", b"$", b"\\A", b"\\Z", b"*", b"+", b"?", b"*?", b"*+", b"{2}", b"{1,3}",
    b"{,9999}", b"{4294967295}", b"{1000}", b"(", b")", b"(?:", b"(?=", b"(?!", b"(?<=", b"(?<!",
    b"(?>", b"(?P<x>", b"(?P=x)", b"(?(1)a|b)", b"(?i)", b"(?i:", b"(?-i:", b"(?s)", b"(?m)",
    b"(?x)", b"(?u)", b"(?a)", b"(?L)", b"(?#", b"|", b"(a+)+$", b"(a|aa)+$", b".*" * 20,
    b"(" * 100, b")" * 100, b"a?" * 30, b"\xc3\xa9", b"\xc5\xbf", b"\\N{DIGIT ONE}", b"\\x61",
    b"\\u0061", b"\\U0010ffff", b"\\777",
)  # fmt: skip


def read(data: bytes) -> None:
    """Match names, short and long ones."""
    one = Expression(data.decode("utf-8", "replace"))
    for name in _NAMES:
        one.matches(name)


def mutate(data: bytes, draws: Draws) -> bytes:
    """Put parts into an expression, or around a part of it; leave parts out, or repeat them."""
    at = draws.randint(0, len(data))
    end = min(len(data), at + draws.randint(0, 12))
    how = draws.randrange(6)
    if how == 0:
        return draws.plain(data, len(data) + 8)
    if how == 1:
        repeat = draws.choice((b")*", b")+", b"){2,}", b")?", b"){3}", b")"))
        return data[:at] + draws.choice((b"(", b"(?:", b"(?=")) + data[at:end] + repeat + data[end:]
    if how == 2:
        return data[:at] + data[end:]
    if how == 3:
        return data[:end] + data[at:]
    return data[:at] + draws.choice(_PARTS) + data[at:]


TARGET = Target(
    "expressions",
    read,
    mutate,
    ("patchc.recipe.expressions",),
    executions=1500,
    most_bytes=1 << 10,
)
