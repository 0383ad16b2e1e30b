"""Random choices, and changes of plain bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

One = TypeVar("One")

NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 63, 64, 65, 127, 128, 255, 256, 1023, 4095, 4096,
    65535, 65536, (1 << 20) - 1, 1 << 20, 1 << 22, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
    (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
"""Numbers at which something ends."""

Bytes = Callable[[bytes, int], bytes]
"""Changes bytes into at most so many others."""


class Draws(Random):
    """Random choices from a seed.

    Attributes:
        plain: changes bytes of no known structure; a fuzzer may put its own in place of it.
    """

    def __init__(self, seed: int | str) -> None:
        super().__init__(seed)
        self.plain: Bytes = self.havoc

    def chance(self, share: float) -> bool:
        """True in this share of calls."""
        return self.random() < share

    def number(self, near: int = 0, bits: int = 64) -> int:
        """A number below 2^``bits``: at an end, near another number, or anywhere."""
        how = self.randrange(4)
        if how == 0:
            value = self.choice(NUMBERS)
        elif how == 1:
            value = near + self.choice((-2, -1, 1, 2, 8, -8, 64, -64))
        elif how == 2:
            value = near ^ 1 << self.randrange(bits)
        else:
            value = self.getrandbits(self.randint(1, bits))
        return value % (1 << bits)

    def place(self, of: Sequence[object]) -> int:
        """A place in a sequence that is not empty."""
        return self.randrange(len(of))

    def changed(self, values: Sequence[int], bits: int) -> list[int]:
        """Numbers of which one was changed, added, removed or moved."""
        found = list(values)
        how = self.randrange(8)
        if not found or how == 0:
            found.insert(self.randint(0, len(found)), self.number(0, bits))
        elif how == 1:
            del found[self.place(found)]
        elif how == 2:
            at, other = self.place(found), self.place(found)
            found[at], found[other] = found[other], found[at]
        else:
            at = self.place(found)
            found[at] = self.number(found[at], bits)
        return found

    def havoc(self, data: bytes, most: int) -> bytes:
        """Change bytes here and there, at most ``most`` of them left."""
        out = bytearray(data)
        for _ in range(1 << self.randrange(4)):
            at = self.randint(0, len(out))
            how = self.randrange(7)
            if how == 0 or not out:
                out[at:at] = self.randbytes(self.randint(1, 8))
            elif how == 1:
                del out[at : at + self.randint(1, 8)]
            elif how == 2:
                other = self.place(out)
                out[at:at] = out[other : other + self.randint(1, 16)]
            elif how == 3 and at < len(out):
                out[at] = self.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif how == 4:
                width = self.choice((1, 2, 4, 8))
                out[at : at + width] = self.number(0, 8 * width).to_bytes(width, "little")
            elif at < len(out):
                out[at] ^= 1 << self.randrange(8)
        return bytes(out[:most])
