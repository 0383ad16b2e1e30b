"""Reads a bundle strictly: each part has one meaning, or the bundle is refused.

A bundle is a Sigstore bundle (v0.3) in JSON with a DSSE envelope; what is signed is an in-toto
statement with the digest of every file.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from patchc.errors import SignatureError, unreadable
from patchc.model_bundle.file_digests import HASHES
from patchc.model_bundle.model_files import WHOLE
from patchc.regular_file import read_regular
from patchc.strict_json import parse_json
from patchc.system_errors import reason

MOST_BYTES = 4 << 20
"""Size of the largest bundle that is read; it has room for some 15,000 files."""

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_Kind = TypeVar("_Kind", str, bytes, list[Any], dict[str, Any], bool)


@dataclass(frozen=True)
class ModelBundle:
    """What a bundle says. Nothing vouches for it before its signature is checked.

    Attributes:
        path: the bundle.
        key_id: of the key that signed: the SHA-256 of its PEM text, in hexadecimal.
        message: the bytes that are signed.
        signature: their signature.
        model: the name that the model's folder had.
        digest: SHA-256 over the digests of all files, in hexadecimal; it stands for the model.
        hash_type: how files are hashed, one of :data:`HASHES`.
        files: the digests of the files by their names, in hexadecimal.
    """

    path: Path
    key_id: str
    message: bytes
    signature: bytes
    model: str
    digest: str
    hash_type: str
    files: dict[str, str]


def read_bundle(path: Path) -> ModelBundle:
    """Read a bundle; its signature is not checked.

    Raises:
        SignatureError: it cannot be read, is malformed, or is of a kind that is not supported.
    """
    try:
        return _read(path, read_regular(path, MOST_BYTES))
    except OSError as error:
        message = f"bundle {path}: cannot read: {reason(error)}"
        raise unreadable(SignatureError, message, error) from error
    except ValueError as error:
        raise SignatureError(
            f"{path} is not a model-signing bundle that patchc reads: {error}; get it again, or "
            "sign the model again"
        ) from error


def _read(path: Path, content: bytes) -> ModelBundle:
    if not content:
        raise ValueError("it is empty")
    bundle = _dict(parse_json(content), "it")
    _expect(bundle, "mediaType", _MEDIA_TYPE)
    material = _get(bundle, "verificationMaterial", dict)
    if "publicKey" not in material:
        raise ValueError("it was signed with a certificate or through Sigstore, not with a key")
    envelope = _get(bundle, "dsseEnvelope", dict)
    _expect(envelope, "payloadType", _PAYLOAD_TYPE)
    payload = _decoded(envelope, "payload")
    signatures = _get(envelope, "signatures", list)
    if len(signatures) != 1:
        raise ValueError(f"it has {len(signatures)} signatures and not one")
    statement = _dict(parse_json(payload), "its payload")
    _expect(statement, "_type", _STATEMENT)
    _expect(statement, "predicateType", _PREDICATE)
    subjects = _get(statement, "subject", list)
    if len(subjects) != 1:
        raise ValueError(f"it has {len(subjects)} subjects and not one")
    subject = _dict(subjects[0], "its subject")
    predicate = _get(statement, "predicate", dict)
    hash_type, files = _files(predicate)
    digest = _get(_get(subject, "digest", dict), "sha256", str)
    if sha256(b"".join(map(bytes.fromhex, files.values()))).hexdigest() != digest:
        raise ValueError("the digest of the model is not that of its files' digests")
    return ModelBundle(
        path=path,
        key_id=_get(_get(material, "publicKey", dict), "hint", str),
        message=_message(payload),
        signature=_decoded(_dict(signatures[0], "its signature"), "sig"),
        model=_get(subject, "name", str),
        digest=digest,
        hash_type=hash_type,
        files=files,
    )


def _files(predicate: dict[str, Any]) -> tuple[str, dict[str, str]]:
    serialization = _get(predicate, "serialization", dict)
    _expect(serialization, "method", "files")
    hash_type = _get(serialization, "hash_type", str)
    if hash_type not in HASHES:
        raise ValueError(f"hash_type {hash_type!r:.40} is not one of {', '.join(HASHES)}")
    files: dict[str, str] = {}
    for one in _get(predicate, "resources", list):
        resource = _dict(one, "a resource")
        name, digest = _get(resource, "name", str), _get(resource, "digest", str)
        _expect(resource, "algorithm", hash_type)
        _check_name(name)
        if name in files:
            raise ValueError(f"it names the file {name!r:.80} twice")
        bytes.fromhex(digest)
        files[name] = digest
    if not files:
        raise ValueError("it names no file")
    return hash_type, files


def _check_name(name: str) -> None:
    parts = name.split("/")
    if name != WHOLE and ("\0" in name or any(part in ("", ".", "..") for part in parts)):
        raise ValueError(f"it names {name!r:.80}, which is no path inside a model's folder")


def _message(payload: bytes) -> bytes:
    """What DSSE signs of a payload: its type and size stand before it."""
    return b"DSSEv1 %d %s %d %s" % (
        len(_PAYLOAD_TYPE),
        _PAYLOAD_TYPE.encode(),
        len(payload),
        payload,
    )


def _decoded(values: dict[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(_get(values, key, str), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{key} is not base64") from error


def _expect(values: dict[str, Any], key: str, wanted: str) -> None:
    if _get(values, key, str) != wanted:
        raise ValueError(f"{key} is {values[key]!r:.80} and not {wanted!r}")


def _get(values: dict[str, Any], key: str, kind: type[_Kind]) -> _Kind:
    if key not in values:
        raise ValueError(f"{key} is missing")
    value = values[key]
    if not isinstance(value, kind):
        raise ValueError(f"{key} is of another type")
    return value


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no object")
    return value
