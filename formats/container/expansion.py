"""Sections that are stored as zlib streams, and how far each may expand (SPEC.md, section 5).

DEFLATE makes a thousand bytes of one, and a byte of an index takes a hundred in memory. So a file
of some kilobytes could take gigabytes; what honest files hold expands by far less.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Literal

from patchc.errors import PatchFormatError

Section = Literal["index", "metadata", "body"]

MOST_EXPANSION: dict[Section, int] = {"index": 8, "metadata": 64, "body": 64}
"""Bytes that a stored byte of a section may stand for; a body is that of a file."""

SLACK = 1 << 16
"""Bytes that a section may have beyond that."""

_MOST_OVERHEAD = 1 << 10
_PIECE = 1 << 20  # zlib makes one call's bytes twice: in blocks, then joined


def compress(section: Section, pieces: Sequence[bytes | memoryview], apart: bool = False) -> bytes:
    """A section's stored form: one zlib stream.

    What would expand by more than a reader takes is stored as it is.

    Args:
        section: what it is.
        pieces: its data.
        apart: whether each piece begins a new block, so that names and digests, for example, do not
            share a Huffman code.
    """
    between = zlib.Z_BLOCK if apart else zlib.Z_NO_FLUSH
    stored = _pack(pieces, 9, between)
    size = sum(map(len, pieces))
    return stored if _may_expand(section, len(stored), size) else _pack(pieces, 0, between)


def _pack(pieces: Sequence[bytes | memoryview], level: int, between: int) -> bytes:
    packer = zlib.compressobj(level)
    parts = [packer.compress(piece) + packer.flush(between) for piece in pieces[:-1]]
    return b"".join(parts) + packer.compress(pieces[-1]) + packer.flush()


def check_sizes(section: Section, stored: int, size: int) -> None:
    """Refuse a section that is declared larger than its stored bytes may make it, or smaller.

    Raises:
        PatchFormatError: naming the section.
    """
    if not _may_expand(section, stored, size):
        raise PatchFormatError(f"the {section} declares a size that its stored bytes cannot hold")
    if stored > size + size // 64 + _MOST_OVERHEAD:
        raise PatchFormatError(f"the {section} is stored in more bytes than its size can take")


def _may_expand(section: Section, stored: int, size: int) -> bool:
    return size <= stored * MOST_EXPANSION[section] + SLACK


def decompress(section: Section, stored: bytes, size: int) -> bytes:
    """Expand a section to exactly the declared ``size``; never allocates more than that.

    Raises:
        PatchFormatError: naming the section.
    """
    check_sizes(section, len(stored), size)
    expander, view, at, data = zlib.decompressobj(), memoryview(stored), 0, BytesIO()
    try:
        while not expander.eof and data.tell() <= size:
            rest: bytes | memoryview = expander.unconsumed_tail
            if not rest:
                rest = view[at : at + _PIECE]
                at += len(rest)
            piece = expander.decompress(rest, min(_PIECE, size + 1 - data.tell()))
            if not piece and not rest:
                break
            data.write(piece)
    except zlib.error as error:
        raise PatchFormatError(f"the {section} is corrupt: {error}") from error
    ended = expander.eof and not expander.unused_data and at == len(stored)
    if data.tell() != size or not ended:
        raise PatchFormatError(f"the {section} does not expand to its declared size")
    return data.getvalue()
