"""The envelope around a signed statement: DSSE, in one encoding (SPEC.md, section 5.4).

Nothing here checks a signature, so that a patch can be read without any cryptography.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from patchc.errors import PatchFormatError
from patchc.formats.container.statement import Statement, canonical_json, parse_statement
from patchc.strict_json import parse_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE = (1 << 16) - 32
"""Bytes of an envelope; with its digest, a signature section has 64 KiB."""

MAX_SIGNATURES = 16

_KEY_ID = re.compile("[0-9a-f]{64}")
_SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class EnvelopeSignature:
    """A signature, which nobody has checked.

    Attributes:
        key_id: which key it claims, 64 hexadecimal digits.
        value: its 64 bytes.
    """

    key_id: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """A statement with its signatures.

    Attributes:
        payload: the statement's bytes.
        signatures: those of it, by increasing key id; 1 to 16.
    """

    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    @cached_property
    def statement(self) -> Statement:
        """What is signed."""
        return parse_statement(self.payload)

    def signed(self, signature: EnvelopeSignature) -> Envelope:
        """The same with one more signature, which replaces that of the same key.

        Raises:
            PatchFormatError: there would be too many.
        """
        others = [one for one in self.signatures if one.key_id != signature.key_id]
        if len(others) == MAX_SIGNATURES:
            raise PatchFormatError(f"an envelope holds {MAX_SIGNATURES} signatures")
        found = sorted([*others, signature], key=lambda one: one.key_id)
        return Envelope(self.payload, tuple(found))

    def pack(self) -> bytes:
        """Its one encoding."""
        signatures = [
            {"keyid": one.key_id, "sig": base64.b64encode(one.value).decode()}
            for one in self.signatures
        ]
        payload = base64.b64encode(self.payload).decode()
        return canonical_json(
            {"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": signatures}
        )


def parse_envelope(data: bytes) -> Envelope:
    """Read an envelope and its statement, in the encoding of :meth:`Envelope.pack` alone.

    Raises:
        PatchFormatError: says why.
    """
    if len(data) > MAX_ENVELOPE:
        raise PatchFormatError(
            f"the envelope of signatures has {len(data):,} bytes, and {MAX_ENVELOPE:,} are the most"
        )
    try:
        whole = parse_json(data)
    except ValueError as error:
        raise PatchFormatError(f"the envelope of signatures cannot be read: {error}") from error
    if not isinstance(whole, dict) or whole.keys() != {"payload", "payloadType", "signatures"}:
        raise PatchFormatError(
            "the envelope of signatures must have payload, payloadType and signatures alone"
        )
    if whole["payloadType"] != PAYLOAD_TYPE:
        raise PatchFormatError(
            f"the envelope has the payload type {whole['payloadType']!r:.80}; it must be "
            f"{PAYLOAD_TYPE}"
        )
    envelope = Envelope(_bytes(whole["payload"], "payload"), _signatures(whole["signatures"]))
    if envelope.pack() != data:
        raise PatchFormatError(
            "the envelope of signatures is not in its canonical encoding; someone has written it "
            "anew: fetch it again"
        )
    _ = envelope.statement  # refused here where it is none
    return envelope


def _signatures(given: Any) -> tuple[EnvelopeSignature, ...]:
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_SIGNATURES:
        raise PatchFormatError(f"the envelope must have 1 to {MAX_SIGNATURES} signatures")
    found = [_signature(one) for one in given]
    ids = [one.key_id for one in found]
    if len(set(ids)) < len(ids):
        raise PatchFormatError("the envelope has two signatures with one key id")
    if sorted(ids) != ids:
        raise PatchFormatError("the envelope's signatures are not in the order of their key ids")
    return tuple(found)


def _signature(given: Any) -> EnvelopeSignature:
    if not isinstance(given, dict) or given.keys() != {"keyid", "sig"}:
        raise PatchFormatError("a signature in the envelope must have keyid and sig alone")
    key_id, value = given["keyid"], _bytes(given["sig"], "sig")
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise PatchFormatError(
            f"the envelope has the key id {key_id!r:.80}; it must be 64 hexadecimal digits"
        )
    if len(value) != _SIGNATURE_BYTES:
        raise PatchFormatError(
            f"a signature in the envelope has {len(value):,} bytes; it must have {_SIGNATURE_BYTES}"
        )
    return EnvelopeSignature(key_id, value)


def _bytes(text: Any, name: str) -> bytes:
    try:
        if not isinstance(text, str):
            raise ValueError("not a text")
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise PatchFormatError(f"the envelope's {name} is not base64") from error
