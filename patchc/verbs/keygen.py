"""Make a pair of keys: one to sign patches with, one for those who check the signatures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from patchc.durability import set_mode
from patchc.errors import OutputError, UsageError
from patchc.files import staged_file
from patchc.output_checks import check_output
from patchc.renaming import discard
from patchc.signing.keys import (
    PUBLIC_SUFFIX,
    make_key,
    password_bytes,
    private_pem,
    public_pem,
    signer_of,
)
from patchc.system_errors import storage_errors

_PRIVATE_MODE, _PUBLIC_MODE = 0o600, 0o644


@dataclass(frozen=True)
class KeygenReport:
    """A pair of keys.

    Attributes:
        private: the file of the private key, which only its owner may read.
        public: the file of the public key.
        key_id: the id that signatures name the key by, 64 hexadecimal digits.
        encrypted: whether the private key takes a password.
    """

    private: Path
    public: Path
    key_id: str
    encrypted: bool


def keygen(out: str | os.PathLike[str], *, password: str | bytes | None = None) -> KeygenReport:
    """Write a new Ed25519 key pair: ``out``, and beside it ``out`` + ``.pub``.

    Both are PEM text, PKCS #8 and SubjectPublicKeyInfo, which OpenSSL reads too. The private key
    gets the mode 0600 before anything is written to it. No file is ever replaced.

    Args:
        out: the file of the private key; neither it nor ``out`` + ``.pub`` may exist.
        password: encrypts the private key; None leaves it as it is.

    Raises:
        UsageError: the password is empty or no text, or the name is that of a public key.
        OutputError, StorageError: a file exists, or cannot be written.
        MissingExtraError: the extra ``sign`` is not installed.
    """
    private = Path(out)
    if not private.name:
        raise OutputError(f"output {private} is a folder; name a file that does not exist")
    public = private.with_name(private.name + PUBLIC_SUFFIX)
    if private.suffix == PUBLIC_SUFFIX:
        raise UsageError(
            f"{private} would be the private key, and *{PUBLIC_SUFFIX} are public ones; leave "
            f"{PUBLIC_SUFFIX} out"
        )
    secret = password_bytes(password)
    for path in (private, public):
        with storage_errors(path, "reach"):
            folder = path.is_dir()
        if folder:
            raise OutputError(f"output {path} is a folder and a key is a file; name a file")
        if os.path.lexists(path):
            raise OutputError(
                f"output {path} already exists, and nothing brings back a key that is removed; "
                "choose another name"
            )
        check_output(path, ())
    key = make_key()
    key_id = signer_of(key).public_key.keyid
    paired = False
    try:
        with staged_file(private) as staging:
            _write(staging, private_pem(key, secret), _PRIVATE_MODE)
            with staged_file(public) as staging_public:
                _write(staging_public, public_pem(key), _PUBLIC_MODE)
            paired = True
    except BaseException as error:
        if paired:
            discard(public, error)
        raise
    return KeygenReport(private, public, key_id, secret is not None)


def _write(path: Path, text: bytes, mode: int) -> None:
    """Write a file that nobody else could read before it has its mode."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        set_mode(file.fileno(), mode)
        file.write(text)
