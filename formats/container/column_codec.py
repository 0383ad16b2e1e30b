"""Columns of the index: numbers as byte planes, names without shared prefixes (SPEC.md, 4.5).

Both suit the zlib stream around them: the upper planes of small numbers are runs of zeros, and a
layer's names without shared prefixes repeat those of the layer before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from os.path import commonprefix
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchFormatError

Width = Literal[1, 2, 4, 8]

_MOST_EXPANSION = 16
_SLACK = 1 << 16


def most_names(index_size: int) -> int:
    """Bytes that the names of an index of this size may have together (SPEC.md, section 4.5)."""
    return _MOST_EXPANSION * index_size + _SLACK


def pack_numbers(values: Sequence[int]) -> bytes:
    """A column of numbers, as narrow as the largest allows: width, then plane by plane."""
    column = np.array(values, "<u8")
    width = max(1, (int(column.max(initial=0)).bit_length() + 7) // 8)
    planes = column.view("u1").reshape(-1, 8)[:, :width].T
    return bytes([width]) + planes.tobytes()


def pack_names(names: Sequence[str]) -> bytes:
    """The columns of names, which are sorted by their bytes."""
    encoded = [name.encode() for name in names]
    shared = [len(commonprefix(pair)) for pair in pairwise([b"", *encoded])]  # noqa: RUF071
    rests = [name[count:] for name, count in zip(encoded, shared, strict=True)]
    return pack_numbers(shared) + pack_numbers([len(rest) for rest in rests]) + b"".join(rests)


class ColumnReader:
    """Reads consecutive columns; every length is checked before anything is made from it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes still to be read."""
        return len(self._data) - self._at

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        if length > self.left:
            raise PatchFormatError("the index is shorter than its counts declare")
        self._at += length
        return self._data[self._at - length : self._at]

    def bytes_column(self, count: int) -> NDArray[np.uint8]:
        """The next ``count`` bytes, each a number."""
        return np.frombuffer(self.take(count), np.uint8)

    def numbers(self, count: int, widest: Width) -> NDArray[np.unsignedinteger]:
        """A column of ``count`` numbers, as unsigned integers of ``widest`` bytes."""
        width = self.take(1)[0]
        if not 1 <= width <= widest:
            raise PatchFormatError("the index has a column of a width out of range")
        words = np.zeros((count, widest), np.uint8)
        words[:, :width] = self.bytes_column(width * count).reshape(width, count).T
        return words.view(f"<u{widest}").reshape(count)

    def names(self, count: int, largest: int, what: str) -> list[str]:
        """The next ``count`` names, of at most ``largest`` bytes together.

        Raises:
            PatchFormatError: a name that is not UTF-8, or not above the one before it.
        """
        shared, rests = self.numbers(count, 2), self.numbers(count, 2)
        total = int(shared.sum(dtype=np.int64) + rests.sum(dtype=np.int64))
        if total > min(largest, most_names(len(self._data))):
            raise PatchFormatError(f"the index's {what} names are above the size cap")
        encoded = self.take(int(rests.sum(dtype=np.int64)))
        found: list[str] = []
        at, last = 0, b""
        for prefix, length in zip(shared.tolist(), rests.tolist(), strict=True):
            if prefix > len(last):
                raise PatchFormatError(
                    f"the index has a {what} name that shares more than there is"
                )
            raw = last[:prefix] + encoded[at : at + length]
            at += length
            if raw <= last:
                raise PatchFormatError(f"the index's {what} names are not unique and sorted")
            last = raw
            try:
                found.append(raw.decode())
            except UnicodeDecodeError as error:
                raise PatchFormatError(f"the index has a {what} name that is not UTF-8") from error
        return found

    def end(self) -> None:
        """Refuse bytes that no column has claimed."""
        if self.left:
            raise PatchFormatError("the index is longer than its counts declare")
