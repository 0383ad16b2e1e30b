"""Digests of the bodies of a patch, as far as they were read."""

from __future__ import annotations

import numpy as np

from patchc.hashing import DIGEST_BYTES, bodies_digest


class ReadBodies:
    """Full digests of the bodies that were read; a body's place is its chunk's row, then its file.

    Threads may note different places at a time.
    """

    def __init__(self, count: int) -> None:
        self._digests = np.zeros((count, DIGEST_BYTES), np.uint8)
        self._known = np.zeros(count, np.bool_)

    def __contains__(self, place: int) -> bool:
        return bool(self._known[place])

    def note(self, place: int, digest: bytes) -> None:
        """Keep the digest of a body."""
        self._digests[place] = np.frombuffer(digest, np.uint8)
        self._known[place] = True

    def digest(self) -> bytes:
        """The digest over all bodies."""
        return bodies_digest(self._digests.tobytes())

    def pack(self) -> bytes:
        """As bytes, for other ranks."""
        return np.packbits(self._known).tobytes() + self._digests[self._known].tobytes()

    def add(self, data: bytes) -> None:
        """Take over what another rank has read of the same patch, from its :meth:`pack`."""
        bits = np.frombuffer(data, np.uint8, -(-len(self._known) // 8))
        known = np.unpackbits(bits, count=len(self._known)).astype(np.bool_)
        self._digests[known] = np.frombuffer(data[bits.size :], np.uint8).reshape(-1, DIGEST_BYTES)
        self._known |= known
