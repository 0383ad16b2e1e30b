"""Keys that OpenSSF model signing takes: elliptic curves of NIST, in PEM files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchc.errors import SignatureError, import_errors
from patchc.signing.keys import key_files, private_text, public_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

EXTRA = "oms"

_HASHES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_MAKE = "`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out model.key`"


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

        digest = getattr(hashes, _HASHES[self._key.curve.name])()
        try:
            self._key.verify(signature, message, ec.ECDSA(digest))
        except InvalidSignature:
            return False
        return True


def load_trusted_curves(places: Sequence[Path]) -> dict[str, CurveKey]:
    """Read trusted public keys.

    Args:
        places: files, and folders whose files ``*.pub`` are taken, all of them.

    Returns:
        The keys by their ids.

    Raises:
        SignatureError: a place cannot be read, a folder holds no key, or a file is not such a key.
        MissingExtraError: the extra ``oms`` is not installed.
    """
    keys = (_load_public(path) for place in places for path in key_files(place))
    return {key.id: key for key in keys}


def check_private(path: Path, password: bytes | None) -> None:
    """Refuse a file that is no private key that model signing takes, or has another password.

    Raises:
        SignatureError: saying what it is.
        MissingExtraError: the extra ``oms`` is not installed.
    """
    text = private_text(path)
    with import_errors("signing a model", EXTRA):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    try:
        key = load_pem_private_key(text, password)
    except TypeError as error:
        told = (
            "encrypted, and there is no password; give --password-file, or set PATCHC_KEY_PASSWORD"
            if password is None
            else "not encrypted, and a password is given; leave it out"
        )
        raise SignatureError(f"key {path} is {told}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        told = "damaged" if password is None else "damaged, or has another password"
        raise SignatureError(f"key {path} is {told}; take the copy that you keep") from error
    _curve_key(f"key {path}", key.public_key())


def _load_public(path: Path) -> CurveKey:
    text = public_text(path)
    with import_errors("checking the signature of a model", EXTRA):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_public_key,
        )
    try:
        found = load_pem_public_key(text)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"trusted key {path} is damaged; fetch it again") from error
    key = _curve_key(f"trusted key {path}", found)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return CurveKey(path, sha256(pem).hexdigest(), key)


def _curve_key(what: str, key: Any) -> EllipticCurvePublicKey:
    """The public key, if it is one that model signing takes; ``what`` names it in messages."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _HASHES:
        return key
    kind = (
        "an Ed25519 key, which signs patches"
        if isinstance(key, Ed25519PublicKey)
        else "of another kind"
    )
    raise SignatureError(
        f"{what} is {kind}; models are signed with a key of curve P-256, P-384 or P-521, such as "
        f"{_MAKE} makes"
    )
