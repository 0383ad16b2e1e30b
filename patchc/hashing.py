"""BLAKE3 digests of chunks, tensors and models.

A chunk's digest is plain BLAKE3 over its bytes. The digests above it are keyed by purpose
(BLAKE3's key derivation mode), so that no digest of one kind can stand for another kind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

DIGEST_BYTES = 32
SHORT_DIGEST_BYTES = 8
"""Digests of bodies, chunks and tensors are stored cut to 64 bits, and those over full ones at 256:
of both models, both sides' files, and all bodies together
(``docs/explanation/design/framing.md``)."""

_TENSOR_CONTEXT = "patchc 2026-11 v1 tensor"
_MODEL_CONTEXT = "patchc 2026-11 v1 model"
_BODIES_CONTEXT = "patchc 2026-11 v1 bodies"
_FILES_CONTEXT = "patchc 2026-11 v1 files"
_ROOT_CONTEXT = "patchc 2026-11 v1 root"
_SIGNATURES_CONTEXT = "patchc 2026-11 v1 signatures"


def chunk_digest(words: NDArray[np.unsignedinteger]) -> bytes:
    """BLAKE3 of the bytes of a chunk's words (contiguous, any width), 32 bytes."""
    return blake3(words.view(np.uint8).data).digest()


class ChunkHasher:
    """As :func:`chunk_digest`, for words that come piece by piece."""

    def __init__(self) -> None:
        self._state = blake3()

    def add(self, words: NDArray[np.unsignedinteger]) -> None:
        """Take the next piece; it may change afterwards."""
        self._state.update(words.view(np.uint8).data)

    def digest(self) -> bytes:
        """The digest of all pieces so far."""
        return self._state.digest()


def tensor_digest(dtype: str, shape: Sequence[int], chunk_digests: Iterable[bytes]) -> bytes:
    """Digest of one tensor from its dtype, its shape and the full digests of its chunks."""
    name = dtype.encode()
    head = struct.pack(f"<BB{len(shape)}Q", len(name), len(shape), *shape) + name
    return _keyed_digest(_TENSOR_CONTEXT, (head, *chunk_digests))


def model_digest(tensors: Iterable[tuple[str, bytes]]) -> bytes:
    """Digest of a model from its (name, tensor digest) pairs, in any order.

    Shard layout, tensor order and metadata do not enter: a re-sharded model is the same model.
    """
    return _keyed_digest(_MODEL_CONTEXT, map(_named, sorted(tensors)))


def bodies_digest(digests: bytes) -> bytes:
    """Digest of all chunk bodies, from their full digests one after the other."""
    return _keyed_digest(_BODIES_CONTEXT, (digests,))


def files_digest(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Digest of one side's files from their names, in order, and the full digests of contents."""
    return _keyed_digest(_FILES_CONTEXT, map(_named, files))


def root_digest(sections: Iterable[bytes]) -> bytes:
    """Digest that identifies a patch file, over the sections that its specification names."""
    return _keyed_digest(_ROOT_CONTEXT, sections)


def signatures_digest(envelope: bytes) -> bytes:
    """Digest that binds a file's envelope of signatures, which the root does not cover."""
    return _keyed_digest(_SIGNATURES_CONTEXT, (envelope,))


def _keyed_digest(context: str, messages: Iterable[bytes]) -> bytes:
    hasher = blake3(derive_key_context=context)
    for message in messages:
        hasher.update(message)
    return hasher.digest()


def _named(pair: tuple[str, bytes]) -> bytes:
    name, digest = pair[0].encode(), pair[1]
    return struct.pack("<I", len(name)) + name + digest


def short(digest: bytes) -> bytes:
    """The stored form of a digest that is not over others: its first 8 bytes."""
    return digest[:SHORT_DIGEST_BYTES]
