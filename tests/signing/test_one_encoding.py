"""The envelope has one encoding: any other is refused, though digest and signatures are right."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from golden_patch import golden_bytes
from signed_patches import (
    FIRST,
    SECOND,
    THIRD,
    TYPE,
    TestKey,
    envelope,
    plain,
    refused,
    signatures,
    statement,
    with_envelope,
)

from patchc.errors import PatchFormatError, SignatureError
from patchc.formats import open_patch
from patchc.signing.check import read_detached

DATA = golden_bytes()
PAYLOAD = plain(statement(DATA))
SIGNED = signatures(PAYLOAD, FIRST, SECOND)
GOOD = envelope(PAYLOAD, SIGNED)
_CANONICAL = "not in its canonical encoding"


def _payload(change: Callable[[bytes], bytes]) -> bytes:
    """An envelope whose payload is changed, and signed as it is then."""
    payload = change(PAYLOAD)
    return envelope(payload, signatures(payload, FIRST))


def _with(signed: list[dict[str, str]]) -> bytes:
    return envelope(PAYLOAD, signed)


def _stated(**changes: object) -> bytes:
    return _payload(lambda _: plain(statement(DATA) | changes))


def _predicate(**changes: object) -> bytes:
    return _stated(predicate=statement(DATA)["predicate"] | changes)


def _signature(**changes: object) -> bytes:
    return plain(json.loads(GOOD) | {"signatures": [SIGNED[0] | changes]})


def _spare_bits(text: str) -> str:
    """The same bytes in base64 with other bits where none count."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = text.rstrip("=")[-1]
    return text.replace(f"{last}=", f"{alphabet[alphabet.index(last) + 1]}=")


def _hex(text: str) -> str:
    return base64.b64decode(text).hex()


BASE64 = base64.b64encode(PAYLOAD).decode()
SIG = SIGNED[0]["sig"]
TWICE = [SIGNED[0], SIGNED[0]]
OTHERS: dict[str, tuple[bytes, str]] = {
    "white space": (GOOD.replace(b",", b", ", 1), _CANONICAL),
    "a line feed at the end": (GOOD + b"\n", _CANONICAL),
    "indented": (json.dumps(json.loads(GOOD), indent=1, sort_keys=True).encode(), _CANONICAL),
    "keys in another order": (
        json.dumps(dict(reversed(json.loads(GOOD).items())), separators=(",", ":")).encode(),
        _CANONICAL,
    ),
    "an escaped character": (GOOD.replace(b"in-toto", b"in\\u002dtoto"), _CANONICAL),
    "an escaped slash": (GOOD.replace(b"application/", b"application\\/"), _CANONICAL),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, "cannot be read"),
    "not UTF-8": (GOOD.replace(b"keyid", b"key\xffd", 1), "cannot be read"),
    "not JSON": (b"{}}", "cannot be read"),
    "a list": (b"[]", "payload, payloadType and signatures alone"),
    "a key twice": (GOOD.replace(b'{"payload"', b'{"payload":"","payload"'), "given twice"),
    "another key": (plain(json.loads(GOOD) | {"x": 1}), "payloadType and signatures alone"),
    "no payload type": (plain({"payload": BASE64, "signatures": SIGNED}), "alone"),
    "another payload type": (GOOD.replace(b"in-toto", b"in-tutu"), f"it must be {re.escape(TYPE)}"),
    "a payload without padding": (GOOD.replace(BASE64.encode(), BASE64.rstrip("=").encode()),
                                  "payload is not base64"),
    "more padding": (GOOD.replace(BASE64.encode(), BASE64.encode() + b"===="),
                     f"payload is not base64|{_CANONICAL}"),
    "base64 for addresses": (
        GOOD.replace(SIG.encode(), SIG.replace("+", "-").replace("/", "_").encode()),
        "sig is not base64",
    ),
    "spare bits of a payload": (
        GOOD.replace(BASE64.encode(), _spare_bits(BASE64).encode()), _CANONICAL
    ),
    "spare bits of a signature": (_signature(sig=_spare_bits(SIG)), _CANONICAL),
    "a line feed in base64": (GOOD.replace(BASE64[:8].encode(), BASE64[:8].encode() + b"\\n"),
                              "payload is not base64"),
    "a payload that is no text": (plain(json.loads(GOOD) | {"payload": 1}), "not base64"),
    "a signature in hexadecimal": (_signature(sig=_hex(SIG)), "has 96 bytes; it must have 64"),
    "a longer signature": (
        _signature(sig=base64.b64encode(bytes(65)).decode()), "65 bytes; it must have 64"
    ),
    "no key id": (_signature(keyid=""), "64 hexadecimal digits"),
    "a key id in capitals": (_signature(keyid=SIGNED[0]["keyid"].upper()), "64 hexadecimal digits"),
    "a key id that is no text": (_signature(keyid=[1]), "64 hexadecimal digits"),
    "another key in a signature": (_signature(cert="x"), "keyid and sig alone"),
    "signatures that are no objects": (_with(["x"]), "keyid and sig alone"),  # type: ignore[list-item]
    "no signature": (_with([]), "1 to 16 signatures"),
    "signatures as an object": (plain(json.loads(GOOD) | {"signatures": {}}), "1 to 16"),
    "the order of signatures": (_with(SIGNED[::-1]), "not in the order of their key ids"),
    "one signature twice": (_with(TWICE), "two signatures with one key id"),
    "two signatures of one key": (
        _with([SIGNED[0], SIGNED[0] | {"sig": base64.b64encode(bytes(64)).decode()}]),
        "two signatures with one key id",
    ),
    "seventeen signatures": (
        _with(signatures(PAYLOAD, *(TestKey(n) for n in range(17)))), "1 to 16 signatures"
    ),
    "a statement with white space": (
        _payload(lambda text: text.replace(b",", b", ", 1)), "not in its canonical encoding"
    ),
    "a statement that is no JSON": (_payload(lambda text: text[:-1]), "statement cannot be read"),
    "a statement with a key twice": (
        _payload(lambda text: text.replace(b'{"_type"', b'{"_type":"","_type"')), "given twice"
    ),
    "a statement with another key": (_stated(more=1), "not in its canonical encoding"),
    "a statement of another type": (_stated(_type="x"), "not in its canonical encoding"),
    "another predicate type": (_stated(predicateType="x"), "not in its canonical encoding"),
    "a predicate with another key": (_predicate(more=1), "not in its canonical encoding"),
    "two subjects": (_stated(subject=2 * statement(DATA)["subject"]), "not one about a patch"),
    "a subject of another name": (
        _stated(subject=[statement(DATA)["subject"][0] | {"name": "x"}]), "canonical"
    ),
    "a digest that is none": (
        _stated(subject=[{"name": "result", "digest": {"patchcModel": "x"}}]), "not one about"
    ),
    "no materials": (_predicate(materials=[]), "not one about a patch"),
    "a time without a zone": (_predicate(issued="2026-11-29T12:00:00"), "not one about a patch"),
    "a time in another zone": (_predicate(issued="2026-11-29T12:00:00+00:00"), "not one about"),
    "a day that does not exist": (_predicate(expires="2026-02-30T12:00:00Z"), "not one about"),
    "a time of the year 0": (_predicate(issued="0000-01-01T00:00:00Z"), "not one about a patch"),
    "an expiry that is a number": (_predicate(expires=7), "not one about a patch"),
    "an unknown kind": (_predicate(kind="x"), "not one about a patch"),
    "a grid that is true": (_predicate(chunkBits=True), "not one about a patch"),
    "a grid with a fraction": (_predicate(chunkBits=12.0), "not one about a patch"),
    "another root": (
        _predicate(materials=[
            statement(DATA)["predicate"]["materials"][0],
            {"name": "patch", "digest": {"patchcRoot": 64 * "0"}},
        ]),
        "about another patch: its root digest",
    ),
    "another base": (
        _predicate(materials=[
            {"name": "base", "digest": {"patchcModel": 64 * "0"}},
            statement(DATA)["predicate"]["materials"][1],
        ]),
        "about another patch: its base",
    ),
    "another result": (
        _stated(subject=[{"name": "result", "digest": {"patchcModel": 64 * "0"}}]),
        "about another patch: its result",
    ),
    "no result": (
        _stated(subject=[
            {"name": "patch", "digest": statement(DATA)["predicate"]["materials"][1]["digest"]}
        ]),
        "about another patch: its result is none",
    ),
    "another grid": (_predicate(chunkBits=20), r"about another patch: its digests are of .* 2\^20"),
    "another kind": (_predicate(kind="fold"), "another patch: its kind or its recipe"),
    "a recipe": (
        _predicate(materials=[
            *statement(DATA)["predicate"]["materials"],
            {"name": "recipe", "digest": {"blake3": 64 * "0"}},
        ]),
        "another patch: its kind or its recipe",
    ),
}  # fmt: skip
_ABOUT_ANOTHER = [name for name, (_, reason) in OTHERS.items() if "another patch" in reason]


def _open(path: Path) -> None:
    with open_patch(path):
        pass


def test_the_encoding_itself_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.patchc"
    path.write_bytes(with_envelope(DATA, GOOD))
    with open_patch(path) as patch:
        assert patch.signatures is not None
        assert patch.signatures.pack() == GOOD
        assert [one.key_id for one in patch.signatures.signatures] == sorted(
            [FIRST.key_id, SECOND.key_id]
        )


@pytest.mark.parametrize("name", OTHERS)
def test_another_is_refused_in_the_file(tmp_path: Path, name: str) -> None:
    text, reason = OTHERS[name]
    assert text != GOOD
    path = tmp_path / "x.patchc"
    path.write_bytes(with_envelope(DATA, text))
    message = refused(PatchFormatError, lambda: _open(path))
    assert re.search(reason, message), message
    assert str(path) in message


@pytest.mark.parametrize("name", [name for name in OTHERS if name not in _ABOUT_ANOTHER])
def test_another_is_refused_beside_the_file(tmp_path: Path, name: str) -> None:
    text, reason = OTHERS[name]
    path = tmp_path / "x.sig"
    path.write_bytes(text + b"\n")
    message = refused(SignatureError, lambda: read_detached(path))
    assert re.search(reason, message), message
    assert str(path) in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, "does not end with a line feed"),
        (GOOD + b"\n\n", _CANONICAL),
        (GOOD + b"\r\n", _CANONICAL),
        (b"", "does not end with a line feed"),
        (b" " * (1 << 16), "more than"),
    ],
)
def test_a_detached_signature_is_an_envelope_and_one_line_feed(
    tmp_path: Path, text: bytes, reason: str
) -> None:
    path = tmp_path / "x.sig"
    path.write_bytes(text)
    assert re.search(reason, refused(SignatureError, lambda: read_detached(path)))
    path.write_bytes(GOOD + b"\n")
    assert read_detached(path).pack() == GOOD


def test_sixteen_signatures_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.patchc"
    keys = [TestKey(number) for number in range(16)]
    path.write_bytes(with_envelope(DATA, envelope(PAYLOAD, signatures(PAYLOAD, *keys))))
    with open_patch(path) as patch:
        assert patch.signatures is not None
        assert len(patch.signatures.signatures) == 16
    assert THIRD.key_id in {key.key_id for key in keys}
