"""The specification's signed file: by hand, by patchc and by a reader made from its section 5."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from datetime import UTC, datetime
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from golden_patch import golden_bytes
from signed_patches import FIRST, SECOND, signed
from spec_listing import SPEC

import patchc
from patchc.formats import EnvelopeSignature, open_patch
from patchc.formats.container.envelope import Envelope
from patchc.formats.container.statement import Statement, canonical_json
from patchc.signing.check import pae_of
from patchc.signing.keys import signer_of

GOLDEN = Path(__file__).parent / "golden" / "signed.patchc"
DATA = GOLDEN.read_bytes()
TEXT = SPEC.split("\n## 12. ")[1]


def _section() -> bytes:
    """The signature section, found as section 5 says."""
    (size,) = struct.unpack("<Q", DATA[-16:-8])
    return DATA[-96 - size : -96]


def test_it_is_the_unsigned_file_and_a_section() -> None:
    plain = golden_bytes()
    section = _section()
    assert DATA[: len(plain) - 96] == plain[:-96]
    trailer = bytearray(plain[-96:])
    trailer[-16:-8] = struct.pack("<Q", len(section))
    assert DATA[len(plain) - 96 + len(section) :] == trailer
    assert signed(plain, FIRST, SECOND, expires="2027-11-29T12:00:00Z") == DATA


def test_the_specification_lists_it() -> None:
    section = _section()
    digest, envelope = section[:32], section[32:]
    assert digest == blake3(envelope, derive_key_context="patchc 2026-11 v1 signatures").digest()
    payload = base64.b64decode(json.loads(envelope)["payload"])
    assert f"`{payload.decode()}`" in TEXT
    assert f"`{envelope.decode().split(base64.b64encode(payload).decode())[1]}`" in TEXT
    rows = dict(re.findall(r"^\| (\d+) \| `([0-9A-F ]+)` \|", TEXT, re.M))
    assert bytes.fromhex(rows["303"]) == digest == DATA[303:335]
    assert bytes.fromhex(rows["1573"]) == DATA[1573:1581]
    assert f"| 335 | {len(envelope)} bytes" in TEXT
    for number, key in enumerate((FIRST, SECOND), start=1):
        assert f"| {number} | `{key.raw.hex()}` | `{key.key_id}` |" in TEXT
        assert f"`patchc test key {number}, not secret`" in TEXT


def test_a_reader_made_from_the_specification_finds_two_signatures() -> None:
    """Section 5.4, with a public key and nothing of patchc's."""
    whole = json.loads(_section()[32:])
    payload = base64.b64decode(whole["payload"])
    signed_bytes = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    found = re.findall(r"^\| \d \| `([0-9a-f]{64})` \| `([0-9a-f]{64})` \|$", TEXT, re.M)
    keys = {key_id: bytes.fromhex(public) for public, key_id in found}
    assert [one["keyid"] for one in whole["signatures"]] == sorted(keys)
    for one in whole["signatures"]:
        public = keys[one["keyid"]]
        text = f'{{"keytype":"ed25519","keyval":{{"public":"{public.hex()}"}},"scheme":"ed25519"}}'
        assert hashlib.sha256(text.encode()).hexdigest() == one["keyid"]
        verifier = Ed25519PublicKey.from_public_bytes(public)
        verifier.verify(base64.b64decode(one["sig"]), signed_bytes)


def test_todays_writer_makes_it(tmp_path: Path) -> None:
    unsigned = tmp_path / "x.patchc"
    unsigned.write_bytes(golden_bytes())
    with open_patch(unsigned) as patch, (tmp_path / "y.patchc").open("wb") as file:
        issued = datetime(2026, 11, 29, 12, tzinfo=UTC)
        statement = Statement(patch.subject, issued, issued.replace(year=2027))
        envelope = Envelope(statement.pack(), ())
        for key in (FIRST, SECOND):
            signer = signer_of(key.private)
            value = bytes.fromhex(signer.sign(pae_of(envelope.payload)).signature)
            envelope = envelope.signed(EnvelopeSignature(signer.public_key.keyid, value))
        from patchc.formats import write_with_signatures

        write_with_signatures(patch, file, envelope)
    assert (tmp_path / "y.patchc").read_bytes() == DATA


def test_signing_again_without_changes_gives_the_same_file(tmp_path: Path) -> None:
    patch = tmp_path / "x.patchc"
    patch.write_bytes(DATA)
    patchc.sign(patch, key=FIRST.write_private(tmp_path / "key"), out=tmp_path / "y.patchc")
    assert (tmp_path / "y.patchc").read_bytes() == DATA


def test_the_recipe_is_stated_as_the_specification_writes_numbers() -> None:
    """The examples of section 5.4, and characters that are escaped."""
    text = SPEC.split("### 5.4 ")[1].split("### 5.5 ")[0]
    for number in (0.3, 6.0, 1e-05, 1.5e16):
        assert f"`{canonical_json(number).decode()}`" in text
    value = {"b": "ü😀\x7f", "a": ['"\\\n\x01', None, True, -7]}
    assert canonical_json(value) == (
        b'{"a":["\\"\\\\\\n\\u0001",null,true,-7],"b":"\\u00fc\\ud83d\\ude00\\u007f"}'
    )
