"""Ed25519 keys: made, and read from files that may be wrong in every way.

Needs the extra ``sign``, which is imported when a key is used.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from patchc.errors import SignatureError, UsageError, import_errors, unreadable
from patchc.regular_file import is_possible, open_regular, read_regular
from patchc.signing.key_encryption import encrypted_pem
from patchc.system_errors import reason

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner, SSlibKey

PUBLIC_SUFFIX = ".pub"
EXTRA = "sign"

_MAX_KEY_FILE = 1 << 14
_BEGIN = b"-----BEGIN "
_PRIVATE = b"PRIVATE KEY-----"
_PKCS8 = (b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_PRIME = 2**255 - 19
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = {0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8}
"""Coordinates y of the points whose eightfold is the neutral one, which OpenSSL takes as keys."""


@contextmanager
def signing_library() -> Iterator[None]:
    """Turn a failed import of what signatures need into an error that names the extra."""
    with import_errors("signing a patch, and checking its signatures,", EXTRA):
        yield


def make_key() -> Ed25519PrivateKey:
    """A new private key.

    Raises:
        MissingExtraError: the extra ``sign`` is not installed.
    """
    with signing_library():
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    return Ed25519PrivateKey.generate()


def private_pem(key: Ed25519PrivateKey, password: bytes | None) -> bytes:
    """A private key as the text of a file (PEM, PKCS #8), encrypted where there is a password."""
    from cryptography.hazmat.primitives import serialization as forms

    encoding = forms.Encoding.PEM if password is None else forms.Encoding.DER
    text = key.private_bytes(encoding, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    return text if password is None else encrypted_pem(text, password)


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public half of a key as the text of a file (PEM, SubjectPublicKeyInfo)."""
    from cryptography.hazmat.primitives import serialization as forms

    form = forms.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(forms.Encoding.PEM, form)


def password_bytes(password: str | bytes | None) -> bytes | None:
    """A password as the bytes that a key is encrypted with: text in UTF-8.

    Raises:
        UsageError: it is empty, or no text.
    """
    if password is not None and not password:
        raise UsageError("the password is empty; give one, or none for a key that is not encrypted")
    try:
        return password.encode() if isinstance(password, str) else password
    except UnicodeEncodeError:  # whose own message has the password
        raise UsageError("the password has half a character (a lone surrogate)") from None


def signer_of(key: Ed25519PrivateKey) -> CryptoSigner:
    """What signs with a key; its ``public_key.keyid`` is the key's id."""
    with signing_library():
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401 (named if missing)
        from securesystemslib.signer import CryptoSigner
    return CryptoSigner(key)


def is_encrypted(path: Path) -> bool:
    """Whether a private key's file says that it takes a password.

    Raises:
        SignatureError: the file cannot be read, or is readable by others.
    """
    return b"ENCRYPTED " + _PRIVATE in private_text(path)


def load_private(path: Path, password: bytes | None = None) -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        path: its file.
        password: what it is encrypted with; not used where it is not encrypted.

    Raises:
        SignatureError: the file cannot be read, is readable by others, holds another kind of key or
            none, or the password is missing or wrong.
        MissingExtraError: the extra ``sign`` is not installed.
    """
    text = private_text(path)
    with signing_library():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

    encrypted = b"ENCRYPTED " + _PRIVATE in text
    if encrypted and password is None:
        raise SignatureError(
            f"key {path} is encrypted, and there is no password; give --password-file, or set "
            "PATCHC_KEY_PASSWORD"
        )
    try:
        key = load_pem_private_key(text, password if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise SignatureError(
                f"key {path} does not open with this password; check the password, and that the "
                "file is whole"
            ) from error
        if not any(form in text for form in _PKCS8):
            raise SignatureError(
                f"key {path} is in another form than PKCS #8, as OpenSSH's keys are; make a key "
                "with `patchc keygen`"
            ) from error
        raise SignatureError(f"key {path} is damaged; take the copy that you keep") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"key {path} is not an Ed25519 key; make one with `patchc keygen`")
    return key


def load_trusted(places: Sequence[Path]) -> dict[str, SSlibKey]:
    """Read trusted public keys; one that is named twice counts once.

    Args:
        places: files, and folders whose files ``*.pub`` are taken, all of them.

    Returns:
        The keys by their ids.

    Raises:
        SignatureError: a place cannot be read, a folder holds no key, or a file is not one key.
        MissingExtraError: the extra ``sign`` is not installed.
    """
    keys = (_load_public(path) for place in places for path in key_files(place))
    return {key.keyid: key for key in keys}


def key_files(place: Path) -> list[Path]:
    """The files of trusted keys that a file or a folder stands for; at least one.

    Raises:
        SignatureError: the place cannot be read, or is a folder without a key.
    """
    try:
        if not is_possible(place) or not stat.S_ISDIR(place.stat().st_mode):
            return [place]
        found = sorted(path for path in place.iterdir() if path.suffix == PUBLIC_SUFFIX)
    except OSError as error:
        message = f"cannot read the trusted keys {place}: {reason(error)}"
        raise unreadable(SignatureError, message, error) from error
    if not found:
        raise SignatureError(
            f"the folder of trusted keys {place} holds no file *{PUBLIC_SUFFIX}, so that nobody is "
            "trusted; put the public keys there that `patchc keygen` wrote"
        )
    return found


def _load_public(path: Path) -> SSlibKey:
    text = public_text(path)
    with signing_library():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
        from securesystemslib.signer import SSlibKey

    try:
        key = load_pem_public_key(text)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"trusted key {path} is damaged; fetch it again") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(
            f"trusted key {path} is not an Ed25519 key; patches are signed with those that `patchc "
            "keygen` makes"
        )
    if _anybody_signs(key.public_bytes_raw()):
        raise SignatureError(
            f"trusted key {path} is one that anybody can make signatures of, without a private key "
            "(its point is of small order); remove it, and ask whoever gave it to you"
        )
    return SSlibKey.from_crypto(key)


def _anybody_signs(public: bytes) -> bool:
    y = int.from_bytes(public, "little") & ~(1 << 255)  # the top bit is the sign of x
    return y % _PRIME in _SMALL_ORDER


def _refuse_other_content(path: Path, text: bytes, private: bool) -> None:
    """Refuse what is not one PEM block of the kind that is needed."""
    what = "key" if private else "trusted key"
    if text.count(_BEGIN) != 1:
        number = "several keys" if _BEGIN in text else "no key"
        raise SignatureError(f"{what} {path} holds {number}; it must be one key as PEM text")
    if private and _PRIVATE not in text:
        raise SignatureError(
            f"key {path} is not a private key; name the file that `patchc keygen` wrote beside it, "
            f"without {PUBLIC_SUFFIX}"
        )
    if not private and _PRIVATE in text:
        raise SignatureError(
            f"trusted key {path} is a private key; name its public half, the file "
            f"*{PUBLIC_SUFFIX}, and keep this one to yourself"
        )


def public_text(path: Path) -> bytes:
    """Read the file of a public key.

    Raises:
        SignatureError: it cannot be read, or holds something else than one public key as PEM text.
    """
    try:
        text = read_regular(path, most=_MAX_KEY_FILE)
    except OSError as error:
        message = f"cannot read the trusted key {path}: {reason(error)}"
        raise unreadable(SignatureError, message, error) from error
    _refuse_other_content(path, text, private=False)
    return text


def private_text(path: Path) -> bytes:
    """Read the file of a private key.

    Raises:
        SignatureError: it cannot be read, others can use it, or it holds something else than one
            private key as PEM text.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        message = f"cannot read the key {path}: {reason(error)}"
        raise unreadable(SignatureError, message, error) from error
    if len(text) > _MAX_KEY_FILE:
        raise SignatureError(f"key {path} is too large to be a key; name the file of the key")
    _refuse_other_content(path, text, private=True)
    if mode & _FOR_OTHERS:
        raise SignatureError(
            f"key {path} can be used by others on this system; run `chmod 600 "
            f"{shlex.quote(str(path))}`, and make a new key if somebody may have copied it"
        )
    return text
