"""Checks the signatures of a patch against trusted keys. One that is not valid is told, not raised.

Several signatures of one key count once. What they state has to be about the patch, and not to be
expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchc.errors import PatchFormatError, SignatureError, UsageError, unreadable
from patchc.formats import Envelope, EnvelopeSignature, Patch, parse_envelope
from patchc.formats.container.envelope import MAX_ENVELOPE, PAYLOAD_TYPE
from patchc.regular_file import read_regular
from patchc.signing.keys import load_trusted, signing_library
from patchc.system_errors import reason

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

State = Literal["valid", "unknown key", "invalid", "issued later", "expired", "other patch"]

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far behind the signer's clock this system's may be."""

_TOLD_FIRST: tuple[State, ...] = (
    "invalid",
    "other patch",
    "issued later",
    "expired",
    "unknown key",
)
"""Why no signature counts: of several reasons, the one that is told."""


@dataclass(frozen=True)
class CheckedSignature:
    """A signature of a patch.

    Attributes:
        key_id: the key that it names.
        state: "valid"; "unknown key": no trusted key has this id; "invalid": it is not that key's
            signature of this statement; "other patch": the key signed another patch; "issued
            later": than this system's clock says, so that the clock is wrong; "expired".
        source: the file of a detached signature; None for one in the patch.
        issued: when it was stated.
        expires: from when on it no longer counts; None for never.
    """

    key_id: str
    state: State
    source: Path | None
    issued: str
    expires: str | None


@dataclass(frozen=True)
class SignatureReport:
    """What :func:`check_signatures` found.

    Attributes:
        patch: the patch file.
        signatures: all of them, those in the patch first.
        trusted: ids of the trusted keys.
        valid: ids of those with a valid signature.
        required: how many have to have one.
        satisfied: whether so many have.
    """

    patch: Path
    signatures: tuple[CheckedSignature, ...]
    trusted: tuple[str, ...]
    valid: tuple[str, ...]
    required: int
    satisfied: bool


def check_signatures(
    patch: Patch, detached: Sequence[Path], trusted: Sequence[Path], require: int, now: datetime
) -> SignatureReport:
    """Check the signatures in a patch and beside it.

    Args:
        patch: the open patch; that its bodies are intact is checked elsewhere.
        detached: files of signatures.
        trusted: files of public keys, and folders of them.
        require: how many trusted keys must have signed; at least 1.
        now: the time to compare with, with a time zone.

    Raises:
        UsageError: ``require`` is below 1.
        SignatureError: a key or a file of signatures cannot be read, or is damaged; or there are
            fewer trusted keys than must have signed.
        MissingExtraError: the extra ``sign`` is not installed.
    """
    if require < 1:
        raise UsageError(f"require is {require}; it must be at least 1")
    keys = load_trusted(trusted)
    if len(keys) < require:
        number = "is only 1" if len(keys) == 1 else f"are only {len(keys)}"
        raise SignatureError(
            f"{require} trusted keys must have signed, and there {number} (copies of a key count "
            "once); name the others, or require fewer"
        )
    sources: list[tuple[Path | None, Envelope]] = [(one, read_detached(one)) for one in detached]
    if patch.signatures:
        sources.insert(0, (None, patch.signatures))
    found = tuple(
        _checked(patch, source, envelope, signature, keys, now)
        for source, envelope in sources
        for signature in envelope.signatures
    )
    valid = tuple(sorted({one.key_id for one in found if one.state == "valid"}))
    enough = len(valid) >= require
    return SignatureReport(patch.path, found, tuple(sorted(keys)), valid, require, enough)


def demand(report: SignatureReport) -> None:
    """Refuse a patch that is not signed as it has to be.

    Raises:
        SignatureError: says why, and what to do.
    """
    if report.satisfied:
        return
    raise SignatureError(f"{report.patch}: {_fault(report)}")


def _fault(report: SignatureReport) -> str:
    if not report.signatures:
        return (
            "the patch is not signed, and a signature of a trusted key is required; get the signed "
            "file or its detached signature from whoever made it"
        )
    faults = {
        state: [one for one in report.signatures if one.state == state] for state in _TOLD_FIRST
    }
    if report.valid:
        others = "".join(f"; {len(ones)} more: {state}" for state, ones in faults.items() if ones)
        return (
            f"too few signatures: {len(report.valid)} of {report.required} trusted keys have "
            f"signed{others}; have another key holder sign it"
        )
    state = next(state for state, ones in faults.items() if ones)
    one = faults[state][0]
    where = f" in {one.source}" if one.source else ""
    return f"the signature{where} {_MEANINGS[state].format(one=one)}"


_MEANINGS: dict[State, str] = {
    "invalid": (
        "that names key {one.key_id} is invalid: it is not that key's signature of this statement; "
        "the patch or its signature was tampered with, so fetch both again from whoever made it"
    ),
    "other patch": (
        "of key {one.key_id} is valid, but for another patch; name the signature that belongs to "
        "this file"
    ),
    "issued later": (
        "of key {one.key_id} was issued at {one.issued}, which this system's clock has not reached "
        "yet; set the clock, since a wrong one does not tell what has expired"
    ),
    "expired": (
        "of key {one.key_id} expired at {one.expires}; ask for a newer patch, or have it signed "
        "again"
    ),
    "unknown key": (
        "is of key {one.key_id}, which is not trusted; if you trust its owner, add the public key "
        "to the trusted ones"
    ),
}


def read_detached(path: Path) -> Envelope:
    """Read a file of signatures: an envelope in its one encoding, and a line feed.

    Raises:
        SignatureError: it cannot be read, or is damaged; names the file.
    """
    try:
        data = read_regular(path, most=MAX_ENVELOPE + 1)
    except OSError as error:
        message = f"cannot read the signature {path}: {reason(error)}"
        raise unreadable(SignatureError, message, error) from error
    try:
        if not data.endswith(b"\n"):
            raise PatchFormatError("it does not end with a line feed: it is cut short")
        return parse_envelope(data[:-1])
    except PatchFormatError as error:
        raise SignatureError(
            f"{path}: not a detached signature of patchc, or a damaged one ({error}); name the "
            "file that `patchc sign --detached` wrote, or fetch it again"
        ) from error


def _checked(
    patch: Patch,
    source: Path | None,
    envelope: Envelope,
    signature: EnvelopeSignature,
    keys: dict[str, SSlibKey],
    now: datetime,
) -> CheckedSignature:
    statement = envelope.statement
    state: State = "valid"
    if signature.key_id not in keys:
        state = "unknown key"
    elif not is_valid(keys[signature.key_id], envelope.payload, signature):
        state = "invalid"
    elif statement.subject.difference(patch.subject):
        state = "other patch"
    elif statement.issued > now + CLOCK_TOLERANCE:
        state = "issued later"
    elif statement.expired(now):
        state = "expired"
    return CheckedSignature(
        signature.key_id, state, source, statement.issued_text, statement.expires_text
    )


def is_valid(key: SSlibKey, payload: bytes, signature: EnvelopeSignature) -> bool:
    """Whether a signature is the key's, of this payload."""
    with signing_library():
        from securesystemslib.exceptions import UnverifiedSignatureError
        from securesystemslib.signer import Signature

    try:
        key.verify_signature(Signature(signature.key_id, signature.value.hex()), pae_of(payload))
    except UnverifiedSignatureError:
        return False
    return True


def pae_of(payload: bytes) -> bytes:
    """The bytes that signatures of a payload are of (DSSE's pre-authentication encoding)."""
    with signing_library():
        from securesystemslib.dsse import Envelope as DsseEnvelope

    encoded: bytes = DsseEnvelope(payload, PAYLOAD_TYPE, {}).pae()
    return encoded
