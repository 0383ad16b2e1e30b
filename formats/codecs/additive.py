"""Codec 2, "additive": per component, positions and coded deltas (SPEC.md, section 6.2).

The values stay as they are stored here; :mod:`patchc.kernels.delta_values` turns them into fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import INT8_BLOCK
from patchc.errors import PatchFormatError
from patchc.formats.codecs.positions import decode_positions, encode_positions
from patchc.formats.codecs.protocol import Positions

ADDITIVE_ID = 2
"""The codec's number in a patch file."""

ValueType = Literal["bf16", "int8"]

_BF16_INFINITY = 0x7F80


@dataclass(frozen=True)
class ComponentEntries:
    """What one component adds to a chunk, as stored.

    Attributes:
        component: the component's number in the patch.
        positions: words of the chunk, strictly increasing; at least one.
        values: one an entry: BF16 words (uint16), or numbers from −127 to 127 (int8).
        absmax: for int8, an fp32 for each block of 256 entries; empty for bf16.
    """

    component: int
    positions: Positions
    values: NDArray[np.integer]
    absmax: NDArray[np.float32]


def encode_additive(entries: Sequence[ComponentEntries], words: int) -> bytes:
    """Code a chunk of ``words`` words; the components come in increasing order."""
    return b"".join(
        bytes([part.component])
        + encode_positions(part.positions, words)
        + part.absmax.tobytes()
        + part.values.tobytes()
        for part in entries
    )


def decode_additive(
    body: bytes, entries: int, words: int, value_type: ValueType, components: int
) -> list[ComponentEntries]:
    """Invert :func:`encode_additive`; ``body`` may be hostile.

    Args:
        body: a chunk's body.
        entries: how many words of the chunk the components touch together.
        words: words in the chunk.
        value_type: how values are stored.
        components: how many components the patch has.

    Raises:
        PatchFormatError: the body is not such a coding.
    """
    parts: list[ComponentEntries] = []
    touched = np.zeros(words, np.bool_)
    at = 0
    while at < len(body):
        component = body[at]
        if component >= components or (parts and component <= parts[-1].component):
            raise PatchFormatError("its body is corrupt: a component is unknown or out of order")
        most = min(entries, len(body) - at)  # a value takes at least a byte
        positions, at = decode_positions(body, at + 1, words, most)
        if not len(positions):
            raise PatchFormatError("its body is corrupt: a component has no entries")
        values, absmax, at = _read_values(body, at, len(positions), value_type)
        parts.append(ComponentEntries(component, positions, values, absmax))
        touched[positions] = True
    count = np.count_nonzero(touched)
    if count != entries:
        raise PatchFormatError(f"its body touches {count} words and its record says {entries}")
    return parts


def _read_values(
    body: bytes, at: int, count: int, value_type: ValueType
) -> tuple[NDArray[np.integer], NDArray[np.float32], int]:
    blocks = -(-count // INT8_BLOCK) if value_type == "int8" else 0
    width = 1 if value_type == "int8" else 2
    end = at + 4 * blocks + width * count
    if end > len(body):
        raise PatchFormatError("its body is corrupt: it ends early")
    absmax = np.frombuffer(body, "<f4", blocks, at)
    if not np.all(np.isfinite(absmax) & ~np.signbit(absmax) & (absmax != 0)):
        raise PatchFormatError("its body is corrupt: an absmax is not positive and finite")
    if value_type == "int8":
        small = np.frombuffer(body, "i1", count, at + 4 * blocks)
        if np.any(small == -128):
            raise PatchFormatError("its body is corrupt: a value is -128, which stands for nothing")
        return small, absmax, end
    wide = np.frombuffer(body, "<u2", count, at)
    if np.any(wide & _BF16_INFINITY == _BF16_INFINITY):
        raise PatchFormatError("its body is corrupt: a value is not finite")
    return wide, absmax, end
