"""Signatures in a patch and beside it, public keys, and bundles of the model-signing library."""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from signed_patches import FIRST, NOW, TYPE

from fuzzing.mutation import json_text, signed_text
from fuzzing.mutation.draws import Draws
from fuzzing.target import Target, expect, scratch, written
from patchc.formats import open_patch
from patchc.formats.container.layout import TRAILER
from patchc.hashing import signatures_digest
from patchc.model_bundle.bundle_file import read_bundle
from patchc.signing.check import check_signatures
from patchc.signing.keys import load_trusted

GOLDEN = Path(__file__).parents[3] / "formats" / "golden" / "signed.patchc"
_SIZE = slice(-16, -8)


def parts() -> tuple[bytes, bytes, bytes]:
    """The signed golden patch: what is before its envelope, the envelope, and its trailer."""
    data = GOLDEN.read_bytes()
    size = int.from_bytes(data[_SIZE], "little")
    start = len(data) - TRAILER.size - size
    return data[:start], data[start + 32 : start + size], data[-TRAILER.size :]


@cache
def _trusted() -> Path:
    return FIRST.write_public(scratch() / "first.pub")


def _in_file(envelope: bytes) -> None:
    before, _, trailer = parts()
    section = signatures_digest(envelope) + envelope
    trailer = trailer[:-16] + len(section).to_bytes(8, "little") + trailer[-8:]
    _check(written("signed.patchc", before + section + trailer), [], envelope)


def _beside(envelope: bytes) -> None:
    before, _, trailer = parts()
    unsigned = written("unsigned.patchc", before + trailer[:-16] + bytes(8) + trailer[-8:])
    detached = written("x.sig", envelope)
    _check(unsigned, [detached], envelope.removesuffix(b"\n"))


def _check(patch: Path, detached: list[Path], envelope: bytes) -> None:
    """A patch counts as signed only where plain Ed25519 says so, of a statement with its root."""
    with open_patch(patch) as opened:
        report = check_signatures(opened, detached, [_trusted()], 1, NOW)
        root = opened.root.hex()
    if report.satisfied:
        whole = json.loads(envelope)
        payload = base64.b64decode(whole["payload"])
        message = f"DSSEv1 {len(TYPE)} {TYPE} {len(payload)} ".encode() + payload
        expect(any(_is_signed(one["sig"], message) for one in whole["signatures"]), "forged")
        expect(re.search(root.encode(), payload) is not None, "signed is another patch")


def _is_signed(signature: str, message: bytes) -> bool:
    with suppress(InvalidSignature):
        FIRST.private.public_key().verify(base64.b64decode(signature), message)
        return True
    return False


def _key(text: bytes) -> None:
    expect(len(load_trusted([written("x.pub", text)])) == 1, "one key is not one")


def _bundle(text: bytes) -> None:
    bundle = read_bundle(written("model.sig", text))
    for name in bundle.files:
        expect(".." not in name.split("/") and not name.startswith("/"), "a name leads out")


_READERS = (_in_file, _beside, _key, _bundle)


def read(data: bytes) -> None:
    """Read one of the four."""
    _READERS[data[0] % 4 if data else 0](data[1:])


def mutate(data: bytes, draws: Draws) -> bytes:
    """Change the file by its kind."""
    kind, content = data[:1] or b"\0", data[1:]
    if draws.chance(0.03):
        kind = bytes([draws.randrange(4)])
    number = kind[0] % 4
    if number == 2:
        return kind + _other_key(content, draws)
    if number == 3:
        return kind + (_other_bundle if draws.chance(0.6) else json_text.mutate)(content, draws)
    changed = signed_text.mutate(content.removesuffix(b"\n"), draws)
    return kind + changed + (b"\n" if number == 1 and draws.chance(0.95) else b"")


def _other_key(text: bytes, draws: Draws) -> bytes:
    """Other bytes of a key between the marks of its text, or another text."""
    with suppress(ValueError, IndexError):
        start, coded, end = re.split(rb"\n", text, maxsplit=2)
        content = draws.plain(base64.b64decode(coded), 200)
        if draws.chance(0.7):
            return b"\n".join((start, base64.b64encode(content), end))
    return draws.plain(text, len(text) + 200)


def _other_bundle(text: bytes, draws: Draws) -> bytes:
    """Another payload in a bundle's envelope."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        whole = json.loads(text)
        payload = json_text.mutate(base64.b64decode(whole["dsseEnvelope"]["payload"]), draws)
        whole["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
        return json.dumps(whole).encode()
    return json_text.mutate(text, draws)


TARGET = Target(
    "signatures",
    read,
    mutate,
    (
        "patchc.formats.container.envelope",
        "patchc.formats.container.signature_section",
        "patchc.formats.container.statement",
        "patchc.signing.check",
        "patchc.model_bundle.bundle_file",
    ),
    executions=1500,
    most_bytes=1 << 13,
)
