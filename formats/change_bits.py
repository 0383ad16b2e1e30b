"""Bits that changes take, split into where they are and what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

_MOST_BITS = 1 << 80


@dataclass(frozen=True)
class ChangeBits:
    """Bits of changes together: which words change, and by which steps."""

    positions: float = 0.0
    values: float = 0.0

    @property
    def total(self) -> float:
        """Bits of both."""
        return self.positions + self.values

    def __add__(self, other: ChangeBits) -> ChangeBits:
        return ChangeBits(self.positions + other.positions, self.values + other.values)

    def to_json(self) -> dict[str, int]:
        """Whole bits to five digits, which is what a patch file keeps."""
        parts = {"positions": self.positions, "values": self.values}
        return {name: round(float(f"{bits:.5g}")) for name, bits in parts.items()}

    @classmethod
    def from_json(cls, parts: object) -> ChangeBits | None:
        """What a patch file states; None where it states nothing, or a stranger nonsense."""
        if not isinstance(parts, dict):
            return None
        positions, values = parts.get("positions"), parts.get("values")
        if not (_is_count(positions) and _is_count(values)):
            return None
        return cls(float(positions), float(values))


def _is_count(bits: object) -> TypeGuard[int]:
    return type(bits) is int and 0 <= bits < _MOST_BITS
