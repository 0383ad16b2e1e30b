"""Signed patch files put together by hand: what they share with patchc is the specification."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NOW = datetime(2026, 12, 1, tzinfo=UTC)
TYPE = "application/vnd.in-toto+json"
_SIGNATURE_SIZE = slice(-16, -8)


@dataclass(frozen=True)
class TestKey:
    """A key whose private half is public: it is made from its number, and signs nothing real."""

    __test__ = False
    number: int

    @property
    def private(self) -> Ed25519PrivateKey:
        seed = hashlib.sha256(f"patchc test key {self.number}, not secret".encode()).digest()
        return Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def raw(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        text = (
            f'{{"keytype":"ed25519","keyval":{{"public":"{self.raw.hex()}"}},"scheme":"ed25519"}}'
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def pem(self) -> bytes:
        form = forms.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(forms.Encoding.PEM, form)

    def sign(self, payload: bytes) -> bytes:
        head = f"DSSEv1 {len(TYPE)} {TYPE} {len(payload)} ".encode()
        return self.private.sign(head + payload)

    def write_public(self, path: Path) -> Path:
        path.write_bytes(self.pem)
        return path

    def write_private(self, path: Path) -> Path:
        pem = self.private.private_bytes(
            forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()
        )
        path.touch(0o600)
        path.write_bytes(pem)
        return path


FIRST, SECOND, THIRD = TestKey(1), TestKey(2), TestKey(3)


def plain(value: Any) -> bytes:
    """JSON in the canonical encoding."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def statement(data: bytes, expires: str | None = None, **changes: Any) -> dict[str, Any]:
    """The statement about an unsigned patch without additive values, read from its bytes."""
    root, base, result = digests(data)
    whole: dict[str, Any] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "result", "digest": {"patchcModel": result}}],
        "predicateType": "urn:patchc:predicate:patch:v1",
        "predicate": {
            "kind": "diff",
            "chunkBits": data[12],
            "materials": [
                {"name": "base", "digest": {"patchcModel": base}},
                {"name": "patch", "digest": {"patchcRoot": root}},
            ],
            "issued": "2026-11-29T12:00:00Z",
            "expires": expires,
        },
    }
    return whole | changes


def digests(data: bytes) -> tuple[str, str, str]:
    """The digests of root, base and result of the golden file, as it stores them."""
    import zlib

    from second_reader import read_index

    offset, stored = struct.unpack("<QQ", data[-96:-80])
    index = read_index(zlib.decompress(data[offset : offset + stored]))
    return data[-48:-16].hex(), index.base_digest.hex(), index.result_digest.hex()


def signatures(payload: bytes, *keys: TestKey) -> list[dict[str, str]]:
    """Signatures by increasing key id."""
    found = [
        {"keyid": key.key_id, "sig": base64.b64encode(key.sign(payload)).decode()} for key in keys
    ]
    return sorted(found, key=lambda one: one["keyid"])


def envelope(payload: bytes, signed: Sequence[dict[str, str]]) -> bytes:
    """An envelope in its canonical encoding."""
    text = base64.b64encode(payload).decode()
    return plain({"payload": text, "payloadType": TYPE, "signatures": list(signed)})


def with_envelope(data: bytes, text: bytes) -> bytes:
    """An unsigned file with a signature section whose digest is right."""
    digest = blake3(text, derive_key_context="patchc 2026-11 v1 signatures").digest()
    section = digest + text if text else b""
    trailer = bytearray(data[-96:])
    trailer[_SIGNATURE_SIZE] = struct.pack("<Q", len(section))
    return data[:-96] + section + trailer


def signed(data: bytes, *keys: TestKey, **changes: Any) -> bytes:
    """A file signed by some keys."""
    payload = plain(statement(data, **changes))
    return with_envelope(data, envelope(payload, signatures(payload, *keys)))


def refused(error: type[Exception], action: Callable[[], object]) -> str:
    """The message of the error that an action has to raise; "" where it raises none."""
    try:
        action()
    except error as caught:
        return str(caught)
    return ""
