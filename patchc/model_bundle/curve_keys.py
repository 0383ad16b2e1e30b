"""Keys that OpenSSF model signing takes: elliptic curves of NIST, in PEM files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchc.errors import SignatureError, import_errors, unreadable
from patchc.regular_file import read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_MOST_BYTES = 1 << 16
_SUFFIXES = (".pub", ".pem")
_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_MAKE = "make one with `patchc keygen --type p256`"


@dataclass(frozen=True)
class CurveKey:
    """A public key that is trusted.

    Attributes:
        path: its file.
        id: as bundles name it: the SHA-256 of its PEM text, in hexadecimal.
    """

    path: Path
    id: str
    _key: EllipticCurvePublicKey

    def is_signer(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature of a message is that of this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            digest = getattr(hashes, _HASHES[self._key.curve.name])()
            self._key.verify(signature, message, ec.ECDSA(digest))
        except InvalidSignature:
            return False
        return True


def read_trusted(places: Iterable[str | os.PathLike[str]]) -> dict[str, CurveKey]:
    """Read trusted public keys: files, or folders whose ``.pub`` and ``.pem`` files are read.

    Ed25519 keys in a folder are passed over: they sign patches.

    Returns:
        The keys by their ids; at least one.

    Raises:
        SignatureError: a file is no such public key or cannot be read, or there is no key.
    """
    given = [Path(place) for place in places]
    found: dict[str, CurveKey] = {}
    for place in given:
        whole = place.is_dir()
        for path in _key_files(place) if whole else [place]:
            key = _public_key(path)
            if not (whole and _is_ed25519(key)):
                pem = _pem(_checked(path, key))
                found[sha256(pem).hexdigest()] = CurveKey(path, sha256(pem).hexdigest(), key)
    if not found:
        raise SignatureError(
            f"{', '.join(map(str, given)) or 'no place'}: no public key of curve P-256, P-384 or "
            "P-521 (a .pub or .pem file) to trust; put the signer's there"
        )
    return found


def check_private(path: Path, password: str | None) -> None:
    """Refuse a file that is no private key that model signing takes, or has another password.

    Raises:
        SignatureError: saying what it is.
    """
    with import_errors("signing a model", "oms"):
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    content = _content(path)
    try:
        key = load_pem_private_key(content, None if password is None else password.encode())
    except TypeError as error:
        told = "is encrypted; give its password" if password is None else "is not encrypted"
        raise SignatureError(f"key {path} {told}") from error
    except ValueError as error:
        told = (
            "is a public key, and signing needs the private one"
            if b"PUBLIC KEY" in content
            else "is no private key in PEM"
            if password is None
            else "does not open with this password, or is no private key in PEM"
        )
        raise SignatureError(f"key {path} {told}") from error
    _checked(path, key.public_key())


def _key_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    except OSError as error:
        raise SignatureError(f"trusted keys {folder}: cannot read: {error.strerror}") from error


def _public_key(path: Path) -> Any:
    with import_errors("checking the signature of a model", "oms"):
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    try:
        return load_pem_public_key(_content(path))
    except ValueError as error:
        raise SignatureError(
            f"trusted key {path} is no public key in PEM; remove it or replace it"
        ) from error


def _checked(path: Path, key: Any) -> Any:
    """The key, if model signing takes its kind."""
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve in _HASHES:
        return key
    kind = "an Ed25519 key, which signs patches" if _is_ed25519(key) else "of another kind"
    raise SignatureError(
        f"key {path} is {kind}; OpenSSF model signing takes P-256, P-384 and P-521: {_MAKE}"
    )


def _is_ed25519(key: Any) -> bool:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return isinstance(key, Ed25519PublicKey)


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise unreadable(
            SignatureError, f"key {path}: cannot read: {error.strerror}", error
        ) from error
