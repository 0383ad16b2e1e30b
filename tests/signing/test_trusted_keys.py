"""Trusted keys: files and folders of them, and what is none, which is never passed over."""

from __future__ import annotations

import base64
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


PRIME = 2**255 - 19
CURVE = -121665 * pow(121666, -1, PRIME) % PRIME


def _add(p: tuple[int, int], q: tuple[int, int]) -> tuple[int, int]:
    """The sum of two points of the curve (RFC 8032, section 5.1.4, in affine coordinates)."""
    (a, b), (c, d) = p, q
    product = CURVE * a * b * c * d
    x = (a * d + b * c) * pow(1 + product, -1, PRIME)
    y = (b * d + a * c) * pow(1 - product, -1, PRIME)
    return x % PRIME, y % PRIME


def _x_of(y: int) -> int:
    square = (y * y - 1) * pow(CURVE * y * y + 1, -1, PRIME) % PRIME
    roots = (pow(square, (PRIME + 3) // 8, PRIME) * one for one in (1, pow(2, PRIME // 4, PRIME)))
    return next(root for root in roots if (root * root - square) % PRIME == 0)


EIGHTH = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL = (0, 1, PRIME - 1, EIGHTH, PRIME - EIGHTH)


@pytest.mark.parametrize("y", [*SMALL, PRIME, PRIME + 1])
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_a_key_that_anybody_can_sign_for_is_not_trusted(y: int, sign: int) -> None:
    """With R the neutral point and S = 0, its signature fits every eighth statement at least."""
    point = _x_of(y), y % PRIME
    for _ in range(3):
        point = _add(point, point)
    assert point == (0, 1)
    raw = (y | sign).to_bytes(32, "little")
    text = FIRST.pem.splitlines()
    text[1] = base64.b64encode(base64.b64decode(text[1])[:-32] + raw)
    Path("key.pub").write_bytes(b"\n".join(text) + b"\n")
    with pytest.raises(SignatureError, match=r"trusted key key\.pub is one that anybody can make"):
        check(signed(DATA, FIRST), "first.pub", "key.pub")


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
