"""The signature section of a patch file, between metadata and trailer (SPEC.md, section 5.3)."""

from __future__ import annotations

from patchc.errors import PatchFormatError
from patchc.formats.container.envelope import Envelope, parse_envelope
from patchc.formats.container.statement import Subject
from patchc.hashing import DIGEST_BYTES, signatures_digest


def pack_section(envelope: Envelope | None) -> bytes:
    """The bytes of a section; none for a file without signatures."""
    if envelope is None:
        return b""
    data = envelope.pack()
    return signatures_digest(data) + data


def parse_section(section: bytes, own: Subject) -> Envelope:
    """Read a section, and check that it is about the patch that holds it.

    Raises:
        PatchFormatError: damaged, not in the one encoding, or about another patch.
    """
    digest, data = section[:DIGEST_BYTES], section[DIGEST_BYTES:]
    if signatures_digest(data) != digest:
        raise PatchFormatError(
            "the signature section is damaged: its digest does not match; fetch the file again"
        )
    envelope = parse_envelope(data)
    if difference := envelope.statement.subject.difference(own):
        raise PatchFormatError(
            f"the signatures in the file are about another patch: {difference}; ask whoever sent "
            "it for the file that was signed"
        )
    return envelope
