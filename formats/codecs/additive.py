"""Codec 2, "additive": per component, positions and coded deltas (SPEC.md, section 6.2).

The values stay as they are stored here; :mod:`patchc.kernels.delta_values` turns them into fp32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchc.dtypes import INT8_BLOCK
from patchc.errors import PatchFormatError
from patchc.formats.codecs.additive_values import ComponentEntries, ValueType
from patchc.formats.codecs.gap_tiles import decode_positions, encode_positions
from patchc.formats.codecs.protocol import ChunkBody, Codec

_BF16_INFINITY = 0x7F80


class AdditiveCodec(Codec):
    """Codes the entries of components that are added to any base."""

    id = 2
    name = "additive"
    is_additive = True

    def encode(self, entries: Sequence[ComponentEntries], words: int) -> bytes:
        """Code a chunk of ``words`` words; the components come in increasing order."""
        return b"".join(
            bytes([own.component])
            + encode_positions(own.positions, words)
            + own.absmax.tobytes()
            + own.values.tobytes()
            for own in entries
        )

    def decode_components(self, chunk: ChunkBody) -> list[ComponentEntries]:
        """Invert :meth:`encode`; see :meth:`Codec.decode_components`."""
        found: list[ComponentEntries] = []
        components = len(chunk.additive.components)
        touched = np.zeros(chunk.words, np.bool_)
        body, at = chunk.data, 0
        while at < len(body):
            component = body[at]
            if component >= components or (found and component <= found[-1].component):
                raise PatchFormatError(
                    "its body is corrupt: a component is unknown or out of order"
                )
            most = min(chunk.entries, len(body) - at)  # a value takes at least a byte
            positions, at = decode_positions(body, at + 1, chunk.words, most)
            if not len(positions):
                raise PatchFormatError("its body is corrupt: a component has no entries")
            values, absmax, at = _read_values(body, at, len(positions), chunk.additive.value_type)
            found.append(ComponentEntries(component, positions, values, absmax))
            touched[positions] = True
        count = np.count_nonzero(touched)
        if count != chunk.entries:
            raise PatchFormatError(
                f"its body touches {count} words and its record says {chunk.entries}"
            )
        return found


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
