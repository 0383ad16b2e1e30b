"""Sign a patch: a statement about it, in the file or in one of its own."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from patchc.durability import set_mode
from patchc.errors import OutputError, PatchFormatError, SignatureError, UsageError
from patchc.files import staged_file
from patchc.formats import Envelope, EnvelopeSignature, Patch, open_patch, write_with_signatures
from patchc.formats.container.envelope import MAX_ENVELOPE
from patchc.output_checks import check_output, check_space
from patchc.reserved import clear_leftovers
from patchc.signing.check import CLOCK_TOLERANCE, pae_of
from patchc.signing.keys import load_private, password_bytes, signer_of
from patchc.signing.statement import parse_expiry, state
from patchc.system_errors import storage_errors

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner


@dataclass(frozen=True)
class SignReport:
    """A signed patch.

    Attributes:
        out: the file with the signature: the patch, or the detached signature.
        root: the patch's root digest, in hexadecimal; a signature does not change it.
        key_id: the id of the key that signed.
        added: False where the file had this key's signature before, and is as it was.
        key_ids: ids of all keys whose signatures ``out`` has; the others are not checked.
        issued: when the statement was made.
        expires: from when on it no longer counts; None for never.
    """

    out: Path
    root: str
    key_id: str
    added: bool
    key_ids: tuple[str, ...]
    issued: str
    expires: str | None


def sign(
    patch: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    detached: str | os.PathLike[str] | None = None,
    expires: str | None = None,
    replace: bool = False,
    password: str | bytes | None = None,
) -> SignReport:
    """Sign a patch that is intact: by default in its own file, which is replaced at once or not.

    Everything but the signatures stays the same bytes: root, base and result keep their digests. A
    patch that is signed gets another signature of the same statement; a second one of the same key
    changes nothing.

    Args:
        patch: the patch file.
        key: the file of the private key.
        out: write the signed patch there, and leave ``patch`` as it is; must not exist.
        detached: write the signature alone there, with a statement of its own; must not exist.
        expires: from when on the signature no longer counts: "90d" from now, a day "2027-06-30"
            (its start in UTC) or a time "2027-06-30T12:00:00Z". None for never, or as the
            statement in the file says.
        replace: drop the signatures in the file, and state anew.
        password: of the private key, if it is encrypted.

    Raises:
        UsageError: arguments exclude each other, ``expires`` is not that of the statement that
            others have signed, that one is expired or of later than now, or the password is empty.
        SignatureError: the key cannot be used, or the file has no room for another signature.
        PatchFormatError, UnsupportedPatchError: the patch is damaged or not readable.
        OutputError, StorageError: the file cannot be written, or is a link to another.
        InUseError: another process works on the same file.
        MissingExtraError: the extra ``sign`` is not installed.
    """
    if detached is not None and (out is not None or replace):
        raise UsageError(
            "a detached signature is a file of its own, and leaves the patch alone; give "
            "--detached without -o and --replace"
        )
    now = datetime.now(UTC)
    wanted = None if expires is None else parse_expiry(expires, now)
    secret = password_bytes(password)
    signer = signer_of(load_private(Path(key), secret))
    job = _Signing(signer, now, wanted, replace)
    own = out is None and detached is None
    if own:
        clear_leftovers(Path(patch))
    with open_patch(patch) as opened:
        target = opened.path if own else Path(out or detached or "")
        _check_own(opened) if own else _check_new(target, opened)
        check_space(target, opened.size if detached is None else MAX_ENVELOPE)
        opened.check_bodies()
        envelope, added = job.sign(opened, detached is not None)
        root = opened.root
        if not added and own:
            return job.report(target, root, envelope, added)
    with staged_file(target, replace=own) as staging, open_patch(patch) as opened:
        if opened.root != root:
            raise OutputError(f"{patch} has changed meanwhile; look at it, and sign it again")
        envelope, added = job.sign(opened, detached is not None)
        with staging.open("xb") as file:
            if own:
                set_mode(file.fileno(), stat.S_IMODE(opened.path.stat().st_mode))
            if detached is None:
                write_with_signatures(opened, file, envelope)
            else:
                file.write(envelope.pack() + b"\n")
    return job.report(target, root, envelope, added)


@dataclass(frozen=True)
class _Signing:
    signer: CryptoSigner
    now: datetime
    expires: datetime | None
    replace: bool

    @property
    def key_id(self) -> str:
        return str(self.signer.public_key.keyid)

    def sign(self, patch: Patch, alone: bool) -> tuple[Envelope, bool]:
        """Sign the statement of the signatures in the patch, or one of its own.

        Returns:
            The envelope, and whether it differs from the one in the patch.
        """
        before = None if alone or self.replace else patch.signatures
        if before is None:
            envelope = Envelope(state(patch, self.now, self.expires).pack(), ())
        else:
            self._check_statement(patch.path, before)
            envelope = before
        value = self.signer.sign(pae_of(envelope.payload)).signature
        signature = EnvelopeSignature(self.key_id, bytes.fromhex(value))
        try:
            return envelope.signed(signature), signature not in envelope.signatures
        except PatchFormatError as error:
            raise SignatureError(f"{patch.path}: {error}; write yours with --detached") from error

    def _check_statement(self, path: Path, before: Envelope) -> None:
        statement, count = before.statement, len(before.signatures)
        text = f"at {statement.expires_text}" if statement.expires else "never"
        anew = f"give --replace, which drops what {count} signed, or write your own with --detached"
        if statement.expired(self.now):
            raise UsageError(f"{path}: its statement expired {text}; {anew}")
        if statement.issued > self.now + CLOCK_TOLERANCE:
            raise UsageError(
                f"{path}: its statement was issued at {statement.issued_text}, which this system's "
                f"clock has not reached yet; set the clock, or {anew}"
            )
        if self.expires not in (None, statement.expires):
            raise UsageError(
                f"{path}: the statement that others have signed expires {text}, and yours would "
                f"expire at another time; leave --expires out to sign the same, {anew}"
            )

    def report(self, out: Path, root: bytes, envelope: Envelope, added: bool) -> SignReport:
        statement = envelope.statement
        return SignReport(
            out,
            root.hex(),
            self.key_id,
            added,
            tuple(one.key_id for one in envelope.signatures),
            statement.issued_text,
            statement.expires_text,
        )


def _check_own(patch: Patch) -> None:
    """Refuse to replace a file that others see under another name."""
    with storage_errors(patch.path, "look at"):
        if patch.path.is_symlink():
            real = os.path.realpath(patch.path)
            raise OutputError(
                f"{patch.path} is a link to {real}; name that file, or write another with -o"
            )
        names = patch.path.stat().st_nlink
    if names > 1:
        raise OutputError(
            f"{patch.path} has {names} names (hard links), and only this one would be signed; "
            "write another file with -o"
        )


def _check_new(target: Path, patch: Patch) -> None:
    check_output(target, (patch.path,))
    if target.is_dir():
        raise OutputError(f"output {target} is a folder and this is a file; name a file")
