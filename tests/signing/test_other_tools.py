"""Keys, envelopes and signatures are what other programs take and make."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from golden_patch import golden_bytes
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey
from signed_patches import FIRST, NOW, SECOND, statement, with_envelope

import patchc
from patchc.formats import EnvelopeSignature
from patchc.signing.check import check_signatures, is_valid
from patchc.signing.keys import load_trusted, signer_of


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.patchc").write_bytes(golden_bytes())
    FIRST.write_private(Path("first"))
    FIRST.write_public(Path("first.pub"))
    SECOND.write_private(Path("second"))


def _openssl(*arguments: str) -> str:
    if not shutil.which("openssl"):
        pytest.skip("needs OpenSSL's command")
    command = ["openssl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _envelope_in_file() -> bytes:
    with patchc.open_patch("x.patchc") as patch:
        place, size = patch.trailer.signature_offset, patch.trailer.signature_size
        return patch.read(place + 32, size - 32)


def test_securesystemslib_verifies_what_is_signed_here() -> None:
    patchc.sign("x.patchc", key="first")
    patchc.sign("x.patchc", key="second")
    envelope = Envelope.from_dict(json.loads(_envelope_in_file()))
    keys = [SSlibKey.from_crypto(key.private.public_key()) for key in (FIRST, SECOND)]
    assert envelope.verify(keys, 2).keys() == {FIRST.key_id, SECOND.key_id}
    other = SSlibKey.from_crypto(Ed25519PrivateKey.generate().public_key())
    with pytest.raises(VerificationError):
        envelope.verify([other], 1)


def test_what_securesystemslib_signs_is_valid_here() -> None:
    data = golden_bytes()
    text = json.dumps(statement(data), sort_keys=True, separators=(",", ":")).encode()
    envelope = Envelope(text, "application/vnd.in-toto+json", {})
    envelope.sign(CryptoSigner(FIRST.private))
    whole = json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")).encode()
    Path("x.patchc").write_bytes(with_envelope(data, whole))
    with patchc.open_patch("x.patchc") as patch:
        assert check_signatures(patch, [], [Path("first.pub")], 1, NOW).satisfied


def test_openssl_verifies_what_is_signed_here() -> None:
    patchc.sign("x.patchc", key="first", detached="x.sig")
    whole = json.loads(Path("x.sig").read_bytes())
    Path("payload").write_bytes(Envelope.from_dict(whole).pae())
    value = Envelope.from_dict(json.loads(Path("x.sig").read_bytes())).signatures[FIRST.key_id]
    Path("value").write_bytes(bytes.fromhex(value.signature))
    told = _openssl(
        "pkeyutl", "-verify", "-pubin", "-inkey", "first.pub", "-rawin", "-in", "payload",
        "-sigfile", "value",
    )  # fmt: skip
    assert "Signature Verified Successfully" in told


@pytest.mark.parametrize(
    "more", [(), ("-aes256", "-pass", "pass:swordfish")], ids=["plain", "encrypted"]
)
def test_keys_that_openssl_makes(more: tuple[str, ...]) -> None:
    _openssl("genpkey", "-algorithm", "ed25519", "-out", "key", *more)
    secret = ("-passin", "pass:swordfish") if more else ()
    Path("key").chmod(0o600)
    _openssl("pkey", "-in", "key", "-pubout", "-out", "key.pub", *secret)
    report = patchc.sign("x.patchc", key="key", password="swordfish")
    assert list(load_trusted([Path("key.pub")])) == [report.key_id]
    with patchc.open_patch("x.patchc") as patch:
        assert check_signatures(
            patch, [], [Path("key.pub")], 1, max(NOW, datetime.now(UTC))
        ).satisfied


@pytest.mark.parametrize("password", [None, "swordfish"])
def test_openssl_reads_keys_that_keygen_makes(password: str | None) -> None:
    patchc.keygen("key", password=password)
    public = _openssl("pkey", "-in", "key", "-pubout", "-passin", f"pass:{password}")
    assert public.encode() == Path("key.pub").read_bytes()


def test_guessing_a_password_is_slow() -> None:
    """OpenSSL tells the rounds that each guess takes."""
    patchc.keygen("key", password="swordfish")
    parsed = _openssl("asn1parse", "-in", "key")
    assert ":PBKDF2" in parsed
    assert ":hmacWithSHA256" in parsed
    rounds = re.search(r"INTEGER\s+:([0-9A-F]+)", parsed)
    assert rounds
    assert int(rounds[1], 16) == 600_000


def test_the_key_id_is_the_digest_of_the_key_in_canonical_json() -> None:
    """As securesystemslib makes it; see the specification, section 5.4."""
    text = f'{{"keytype":"ed25519","keyval":{{"public":"{FIRST.raw.hex()}"}},"scheme":"ed25519"}}'
    key_id = hashlib.sha256(text.encode()).hexdigest()
    assert patchc.sign("x.patchc", key="first").key_id == key_id
    assert signer_of(FIRST.private).public_key.keyid == key_id


RFC_8032 = [  # section 7.1, tests 1 to 3: secret key, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
        "f9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
        "f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f76098"
        "4dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_the_vectors_of_rfc_8032(
    monkeypatch: pytest.MonkeyPatch, secret: str, public: str, message: str, signature: str
) -> None:
    """The bytes to sign are those of the vector here, in place of an envelope's."""
    monkeypatch.setattr("patchc.signing.check.pae_of", bytes)
    signer = signer_of(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    assert signer.public_key.keyval == {"public": public}
    assert signer.sign(bytes.fromhex(message)).signature == signature
    key_id, value = signer.public_key.keyid, bytes.fromhex(signature)
    assert is_valid(signer.public_key, bytes.fromhex(message), EnvelopeSignature(key_id, value))
    for place in range(64):
        wrong = bytearray(value)
        wrong[place] ^= 1 << place % 8
        other = EnvelopeSignature(key_id, bytes(wrong))
        assert not is_valid(signer.public_key, bytes.fromhex(message), other)


def test_a_signature_has_one_form() -> None:
    """With the group's order added to its second half, a signature is another, and invalid."""
    order = 2**252 + 27742317777372353535851937790883648493
    signer = signer_of(FIRST.private)
    value = bytes.fromhex(signer.sign(b"message").signature)
    larger = int.from_bytes(value[32:], "little") + order
    other = value[:32] + larger.to_bytes(32, "little")
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr("patchc.signing.check.pae_of", bytes)
        key, key_id = signer.public_key, signer.public_key.keyid
        assert is_valid(key, b"message", EnvelopeSignature(key_id, value))
        assert not is_valid(key, b"message", EnvelopeSignature(key_id, other))
