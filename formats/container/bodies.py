"""Bodies of a patch: what the index says of each, and the digests of those that were read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchc.hashing import DIGEST_BYTES, SHORT_DIGEST_BYTES, bodies_digest
from patchc.sides import Side

NO_DIGEST = bytes(SHORT_DIGEST_BYTES)


@dataclass(frozen=True, kw_only=True)
class BodyRecord:
    """What a body changes, and where it lies.

    Attributes:
        body_digest: short digest of the body.
        base_digest, result_digest: short digests of the two sides; zero where there is nothing.
        offset, length: where the body lies in the patch file, in bytes.
    """

    body_digest: bytes = NO_DIGEST
    base_digest: bytes = NO_DIGEST
    result_digest: bytes = NO_DIGEST
    length: int = 0
    offset: int = 0

    def digest_on(self, side: Side) -> bytes:
        """Short digest of one side."""
        return self.base_digest if side == "base" else self.result_digest


class ReadBodies:
    """Full digests of the bodies that were read, by place: those of chunks, then those of files.

    Threads may note different places at the same time.
    """

    def __init__(self, count: int) -> None:
        self._digests = np.zeros((count, DIGEST_BYTES), np.uint8)
        self._known = np.zeros(count, np.bool_)

    def __contains__(self, place: int) -> bool:
        return bool(self._known[place])

    def note(self, place: int, digest: bytes) -> None:
        """Note the digest of a body."""
        self._digests[place] = np.frombuffer(digest, np.uint8)
        self._known[place] = True

    def digest(self) -> bytes:
        """The digest over all bodies."""
        return bodies_digest(self._digests.tobytes())

    def pack(self) -> bytes:
        """The noted digests as bytes, for other ranks."""
        return np.packbits(self._known).tobytes() + self._digests[self._known].tobytes()

    def add(self, data: bytes) -> None:
        """Add what another rank has read of the same patch, from its :meth:`pack`."""
        bits = np.frombuffer(data, np.uint8, -(-len(self._known) // 8))
        known = np.unpackbits(bits, count=len(self._known)).astype(np.bool_)
        self._digests[known] = np.frombuffer(data[bits.size :], np.uint8).reshape(-1, DIGEST_BYTES)
        self._known |= known
