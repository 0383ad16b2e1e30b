"""Trusted keys: files and folders of them, and what is none, which is never passed over."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from golden_patch import golden_bytes
from signature_checks import check
from signed_patches import FIRST, NOW, SECOND, refused, signed

from patchc.errors import SignatureError
from patchc.formats import open_patch
from patchc.signing.check import check_signatures

DATA = golden_bytes()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FIRST.write_public(Path("first.pub"))


def test_a_folder_of_keys() -> None:
    Path("keys").mkdir()
    with pytest.raises(SignatureError, match=r"keys holds no file \*\.pub, so that nobody is"):
        check(signed(DATA, FIRST), "keys")
    FIRST.write_public(Path("keys/a.pub"))
    Path("keys/notes.txt").write_text("not a key")
    assert check(signed(DATA, FIRST), "keys").satisfied
    Path("keys/b.pub").write_text("not a key")
    with pytest.raises(SignatureError, match=r"keys/b\.pub holds no key"):
        check(signed(DATA, FIRST), "keys")


def _damaged() -> bytes:
    return FIRST.pem.replace(b"MCow", b"MCox")


def _of_another_kind() -> bytes:
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    form = forms.PublicFormat.SubjectPublicKeyInfo
    return generate_private_key(SECP256R1()).public_key().public_bytes(forms.Encoding.PEM, form)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "holds no key"),
        (b"\x00\xff", "holds no key"),
        (FIRST.raw, "holds no key"),
        (_damaged(), "is damaged"),
        (FIRST.pem[:40], "is damaged"),
        (FIRST.pem + SECOND.pem, "holds several keys"),
        (_of_another_kind(), "is not an Ed25519 key"),
        (b"x" * (1 << 15), "more than 16,384 bytes"),
    ],
    ids=["empty", "bytes", "raw", "damaged", "cut", "two", "P-256", "large"],
)
def test_a_trusted_key_that_is_none(text: bytes, reason: str) -> None:
    Path("key.pub").write_bytes(text)
    with pytest.raises(SignatureError, match=rf"key key\.pub.*{reason}"):
        check(signed(DATA, FIRST), "first.pub", "key.pub")


def test_a_private_key_among_the_trusted() -> None:
    FIRST.write_private(Path("key.pub"))
    with pytest.raises(SignatureError, match=r"key\.pub is a private key; name its public half"):
        check(signed(DATA, FIRST), "key.pub")


def test_places_that_cannot_be_read() -> None:
    os.mkfifo("pipe.pub")
    with pytest.raises(SignatureError, match="it is a pipe, and a file is needed"):
        check(signed(DATA, FIRST), "pipe.pub")
    with pytest.raises(FileNotFoundError, match="cannot read the trusted keys none"):
        check(signed(DATA, FIRST), "none")
    Path("x.patchc").write_bytes(DATA)
    with open_patch("x.patchc") as patch:
        for name, reason in (("pipe.pub", "it is a pipe"), ("none", "no such file")):
            message = refused(
                SignatureError,
                lambda name=name: check_signatures(  # type: ignore[misc]
                    patch, [Path(name)], [Path("first.pub")], 1, NOW
                ),
            )
            assert re.search(f"cannot read the signature {name}: {reason}", message)
