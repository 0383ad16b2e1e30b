"""Bits that coded changes take: those of positions and those of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

_MOST_BITS = 1 << 80


@dataclass(frozen=True)
class ChangeBits:
    """Bits of changes.

    Attributes:
        positions: bits of which words change.
        values: bits of the steps by which they do.
    """

    positions: float = 0.0
    values: float = 0.0

    @property
    def total(self) -> float:
        """Bits of both."""
        return self.positions + self.values

    def __add__(self, other: ChangeBits) -> ChangeBits:
        return ChangeBits(self.positions + other.positions, self.values + other.values)

    def to_json(self) -> dict[str, int]:
        """Whole bits to five digits, as a patch file stores them."""
        return {name: round(float(f"{bits:.5g}")) for name, bits in vars(self).items()}

    @classmethod
    def from_json(cls, stored: object) -> ChangeBits | None:
        """Read what a patch file stores; None where that is missing or wrong."""
        if not isinstance(stored, dict):
            return None
        positions, values = stored.get("positions"), stored.get("values")
        if not (_is_count(positions) and _is_count(values)):
            return None
        return cls(float(positions), float(values))


def _is_count(bits: object) -> TypeGuard[int]:
    return type(bits) is int and 0 <= bits < _MOST_BITS
