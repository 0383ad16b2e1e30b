"""Writes a bundle, by the model-signing package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from patchc.errors import import_errors
from patchc.model_bundle.curve_keys import EXTRA
from patchc.model_bundle.model_files import OF_GIT

HASH_TYPE = "sha256"
"""What every reader of bundles knows."""


@dataclass(frozen=True)
class _Digest:
    """A digest as the package takes it."""

    algorithm: str
    digest_value: bytes

    @property
    def digest_hex(self) -> str:
        return self.digest_value.hex()


@dataclass(frozen=True)
class _Hashed:
    """Stands for the package's own hashing: it cannot be interrupted, nor tell of progress."""

    manifest: Any

    def hash(self, _model: object) -> Any:
        return self.manifest


def check_library() -> None:
    """Refuse before a model is read where nothing could be signed.

    Raises:
        MissingExtraError: the extra ``oms`` is not installed.
    """
    with import_errors("signing a model", EXTRA):
        import model_signing.manifest
        import model_signing.signing  # noqa: F401


def write_bundle(
    out: Path,
    model: Path,
    digests: Mapping[str, str],
    key: Path,
    password: bytes | None,
    follow_links: bool,
) -> None:
    """Sign the digests of a model's files.

    Args:
        out: the bundle to write.
        model: the model, which gives its name.
        digests: SHA-256 of each file by its name, in hexadecimal.
        key: the private key, which has been checked.
        password: of the key.
        follow_links: whether links were followed; readers are told.

    Raises:
        OSError: ``out`` cannot be written.
    """
    from model_signing.manifest import FileManifestItem, Manifest, SerializationType
    from model_signing.signing import Config

    how = {
        "method": "files",
        "hash_type": HASH_TYPE,
        "allow_symlinks": follow_links,
        "ignore_paths": list(OF_GIT),
    }
    items = [
        FileManifestItem(path=PurePosixPath(name), digest=_Digest(HASH_TYPE, bytes.fromhex(value)))
        for name, value in digests.items()
    ]
    name = Path(os.path.abspath(model)).name  # noqa: PTH100 (a link keeps its own name)
    manifest = Manifest(name, items, SerializationType.from_args(how))
    signing = Config().use_elliptic_key_signer(private_key=key, password=password)
    signing.set_hashing_config(_Hashed(manifest)).sign(model, out)
