"""The end of a patch file: index, metadata and trailer under one root digest, and signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from patchc.errors import UnsupportedInputError
from patchc.formats.container import layout
from patchc.formats.container.envelope import Envelope
from patchc.formats.container.expansion import compress
from patchc.formats.container.metadata import has_too_many_values, pack_metadata
from patchc.formats.container.reader import Patch
from patchc.formats.container.signature_section import pack_section
from patchc.hashing import root_digest

_BLOCK_BYTES = 1 << 20


def seal(
    prologue: bytes, trailer: layout.Trailer, stored_index: bytes, text: bytes
) -> tuple[bytes, bytes]:
    """Make the end of a file, and its root digest.

    Args:
        prologue: the file's first bytes.
        trailer: with the index's offset and size, and the features; the rest is found here, and
            signatures are none.
        stored_index: the index, compressed.
        text: the metadata, not compressed.
    """
    stored_text = compress("metadata", [text])
    trailer = replace(
        trailer,
        index_stored=len(stored_index),
        metadata_stored=len(stored_text),
        metadata_size=len(text),
        signature_size=0,
    )
    head = trailer.pack()[: layout.TRAILER_ROOT_OFFSET]
    root = root_digest((prologue, stored_index, stored_text, head))
    return stored_index + stored_text + replace(trailer, root=root).pack(), root


def write_with_signatures(patch: Patch, file: BinaryIO, envelope: Envelope | None) -> None:
    """Write a patch again with other signatures, or with none; it keeps its root digest.

    Raises:
        PatchFormatError: the patch became unreadable.
    """
    section = pack_section(envelope)
    _copy(patch, file, patch.trailer.signature_offset)
    file.write(section + replace(patch.trailer, signature_size=len(section)).pack())


def write_with_metadata(patch: Patch, file: BinaryIO, metadata: Mapping[str, Any]) -> bytes:
    """Write a patch again with other metadata, and return the new root digest.

    Prologue, bodies and index are the same bytes, so that base and result stay the same. Signatures
    are left out, since they are of the old root.

    Raises:
        UnsupportedInputError: the metadata is above the format's cap.
        PatchFormatError: the patch became unreadable.
    """
    text = pack_metadata(metadata)
    if len(text) > layout.MAX_METADATA:
        raise UnsupportedInputError(
            f"{patch.path}: the metadata would have {len(text):,} bytes, and the format takes "
            f"{layout.MAX_METADATA:,}; shorten what is added"
        )
    if has_too_many_values(text):
        raise UnsupportedInputError(
            f"{patch.path}: the metadata would have more values than the format takes; add fewer"
        )
    trailer = patch.trailer
    _copy(patch, file, trailer.index_offset)
    prologue = patch.read(0, layout.PROLOGUE.size)
    stored_index = patch.read(trailer.index_offset, trailer.index_stored)
    end, root = seal(prologue, trailer, stored_index, text)
    file.write(end)
    return root


def _copy(patch: Patch, file: BinaryIO, end: int) -> None:
    for start in range(0, end, _BLOCK_BYTES):
        file.write(patch.read(start, min(_BLOCK_BYTES, end - start)))
