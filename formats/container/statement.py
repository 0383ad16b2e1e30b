"""What a signature of a patch states: an in-toto statement, in one encoding (SPEC.md, section 5.5).

Reading one needs no cryptography. Whether a signature of it is valid is another question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blake3 import blake3

from patchc.errors import PatchFormatError
from patchc.strict_json import parse_json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:patchc:predicate:patch:v1"

_MODEL, _PATCH, _RECIPE = "patchcModel", "patchcRoot", "blake3"
_KINDS = ("build", "diff", "fold")
_DIGEST = re.compile("[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Subject:
    """The patch that a statement is about.

    Attributes:
        root: the patch's root digest, in hexadecimal, as all digests here.
        base: the digest of the base.
        result: the digest of the result; None for an additive patch, which promises none.
        chunk_bits: the grid of both digests.
        kind: "build", "diff" or "fold"; None where the patch does not say.
        recipe: the digest of the recipe in the patch's metadata; None where there is none.
    """

    root: str
    base: str
    result: str | None
    chunk_bits: int
    kind: str | None
    recipe: str | None

    def difference(self, own: Subject) -> str:
        """Say what of another patch this is: a clause about the first thing that differs, or ""."""
        if self.root != own.root:
            return f"its root digest is {self.root}, and this patch's is {own.root}"
        if self.chunk_bits != own.chunk_bits:
            return f"its digests are of chunks of 2^{self.chunk_bits} words, not 2^{own.chunk_bits}"
        if self.base != own.base:
            return f"its base has digest {self.base}, and this patch's base {own.base}"
        if self.result != own.result:
            return f"its result is {self.result or 'none'}, and this patch's {own.result or 'none'}"
        if (self.kind, self.recipe) != (own.kind, own.recipe):
            return "its kind or its recipe is not this patch's"
        return ""


@dataclass(frozen=True)
class Statement:
    """What is signed.

    Attributes:
        subject: the patch.
        issued: when it was stated, in UTC, to the second.
        expires: from when on it no longer counts; None for never.
    """

    subject: Subject
    issued: datetime
    expires: datetime | None

    @property
    def issued_text(self) -> str:
        """When it was stated, as the statement has it (RFC 3339, UTC, seconds)."""
        return time_text(self.issued)

    @property
    def expires_text(self) -> str | None:
        """From when on it no longer counts, as the statement has it; None for never."""
        return None if self.expires is None else time_text(self.expires)

    def expired(self, now: datetime) -> bool:
        """Whether it no longer counts."""
        return self.expires is not None and now >= self.expires

    def pack(self) -> bytes:
        """Its one encoding: the payload of the envelope."""
        subject = self.subject
        materials = [
            _resource("base", _MODEL, subject.base),
            _resource("patch", _PATCH, subject.root),
        ]
        if subject.recipe is not None:
            materials.append(_resource("recipe", _RECIPE, subject.recipe))
        whole = {
            "_type": STATEMENT_TYPE,
            "subject": [
                _resource("patch", _PATCH, subject.root)
                if subject.result is None
                else _resource("result", _MODEL, subject.result)
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "chunkBits": subject.chunk_bits,
                "expires": self.expires_text,
                "issued": self.issued_text,
                "kind": subject.kind,
                "materials": materials,
            },
        }
        return canonical_json(whole)


def subject_of(
    root: bytes, base: bytes, result: bytes | None, chunk_words: int, metadata: Mapping[str, Any]
) -> Subject:
    """Describe a patch as its statements have to."""
    kind, recipe = metadata.get("kind"), metadata.get("recipe")
    return Subject(
        root.hex(),
        base.hex(),
        None if result is None else result.hex(),
        chunk_words.bit_length() - 1,
        kind if kind in _KINDS else None,
        None if recipe is None else blake3(canonical_json(recipe)).hexdigest(),
    )


def parse_statement(payload: bytes) -> Statement:
    """Read a statement; any other encoding than :meth:`Statement.pack`'s is refused.

    Raises:
        PatchFormatError: it is no such statement.
    """
    try:
        whole = parse_json(payload)
    except ValueError as error:
        raise PatchFormatError(f"the signed statement cannot be read: {error}") from error
    try:
        statement = _read(whole)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PatchFormatError(
            "the signed statement is not one about a patch, or of another version; update patchc, "
            "or have the patch signed again"
        ) from error
    if statement.pack() != payload:
        raise PatchFormatError("the signed statement is not in its canonical encoding")
    return statement


def canonical_json(value: Any) -> bytes:
    """The one encoding of a JSON value: sorted keys, no white space, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def time_text(time: datetime) -> str:
    """A time as a statement has it."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def parse_time(text: str) -> datetime:
    """Read a time as a statement has it.

    Raises:
        ValueError: it has another form, or does not exist.
    """
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ValueError("not a time of a statement")
    return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)


def _read(whole: Any) -> Statement:
    """Pick a statement's values; that it has no others, its encoding shows."""
    predicate = whole["predicate"]
    base, patch, *recipe = predicate["materials"]
    (subject,) = whole["subject"]
    digests: list[str | None] = [base["digest"][_MODEL], patch["digest"][_PATCH]]
    digests.append(subject["digest"].get(_MODEL))
    digests.append(recipe[0]["digest"][_RECIPE] if recipe else None)
    for digest in digests:
        if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
            raise ValueError("not a digest")
    if digests[0] is None or digests[1] is None:
        raise ValueError("no digest")
    bits, kind, expires = predicate["chunkBits"], predicate["kind"], predicate["expires"]
    if type(bits) is not int or (kind is not None and kind not in _KINDS):
        raise ValueError("not a grid or a kind")
    return Statement(
        Subject(digests[1], digests[0], digests[2], bits, kind, digests[3]),
        parse_time(predicate["issued"]),
        None if expires is None else parse_time(expires),
    )


def _resource(name: str, algorithm: str, digest: str) -> dict[str, Any]:
    return {"digest": {algorithm: digest}, "name": name}
