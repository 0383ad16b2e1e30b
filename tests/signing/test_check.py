"""Which signatures count, and why others do not: each reason has a message of its own."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from golden_masks import golden_bytes as other_bytes
from golden_patch import golden_bytes
from signature_checks import check
from signed_patches import (
    FIRST,
    NOW,
    SECOND,
    THIRD,
    TestKey,
    envelope,
    plain,
    refused,
    signatures,
    signed,
    statement,
    with_envelope,
)

from patchc.errors import SignatureError, UsageError
from patchc.formats import open_patch
from patchc.signing.check import SignatureReport, check_signatures, demand

DATA, OTHER = golden_bytes(), other_bytes()
PAYLOAD = plain(statement(DATA))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, key in (("first", FIRST), ("second", SECOND), ("third", THIRD)):
        key.write_public(Path(f"{name}.pub"))


def states(report: SignatureReport) -> list[str]:
    return [one.state for one in report.signatures]


def fault(report: SignatureReport) -> str:
    assert not report.satisfied
    message = refused(SignatureError, lambda: demand(report))
    assert message.startswith("x.patchc: ")
    return message


def of(payload: bytes, *keys: TestKey) -> bytes:
    return envelope(payload, signatures(payload, *keys))


def test_enough_distinct_keys_satisfy() -> None:
    report = check(signed(DATA, FIRST, SECOND), "first.pub", "second.pub", require=2)
    assert states(report) == ["valid", "valid"]
    assert report.valid == tuple(sorted([FIRST.key_id, SECOND.key_id]))
    assert report.satisfied
    demand(report)


def test_detached_ones_count_together_with_those_in_the_file() -> None:
    later = plain(statement(DATA, expires="2027-01-01T00:00:00Z"))
    given = {"detached": [of(later, SECOND), of(PAYLOAD, THIRD)], "require": 3}
    trusted = ("first.pub", "second.pub", "third.pub")
    report = check(signed(DATA, FIRST), *trusted, **given)  # type: ignore[arg-type]
    assert report.satisfied
    assert [str(one.source) for one in report.signatures] == ["None", "0.sig", "1.sig"]
    assert [one.expires for one in report.signatures] == [None, "2027-01-01T00:00:00Z", None]
    assert check(DATA, *trusted, detached=[of(PAYLOAD, FIRST)]).satisfied


def test_one_key_counts_once_however_often_it_signed_and_is_trusted() -> None:
    shutil.copy("first.pub", "again.pub")
    report = check(
        signed(DATA, FIRST),
        "first.pub",
        "again.pub",
        "second.pub",
        require=2,
        detached=[of(PAYLOAD, FIRST), of(plain(statement(DATA, "2027-01-01T00:00:00Z")), FIRST)],
    )
    assert states(report) == ["valid"] * 3
    assert report.valid == (FIRST.key_id,)
    assert len(report.trusted) == 2
    assert "too few signatures: 1 of 2 trusted keys have signed" in fault(report)


def test_a_patch_that_is_not_signed() -> None:
    report = check(DATA, "first.pub")
    assert states(report) == []
    assert "the patch is not signed" in fault(report)


def test_an_unknown_key() -> None:
    report = check(signed(DATA, SECOND), "first.pub")
    assert states(report) == ["unknown key"]
    assert f"is of key {SECOND.key_id}, which is not trusted" in fault(report)


def test_an_invalid_signature() -> None:
    wrong = [{"keyid": FIRST.key_id, "sig": base64.b64encode(bytes(64)).decode()}]
    report = check(with_envelope(DATA, envelope(PAYLOAD, wrong)), "first.pub")
    assert states(report) == ["invalid"]
    assert f"that names key {FIRST.key_id} is invalid" in fault(report)


def test_an_expired_one() -> None:
    data = signed(DATA, FIRST, expires="2026-12-01T00:00:00Z")
    assert check(data, "first.pub", now=NOW - timedelta(seconds=1)).satisfied
    report = check(data, "first.pub", now=NOW)
    assert states(report) == ["expired"]
    assert "expired at 2026-12-01T00:00:00Z" in fault(report)


def test_one_of_another_patch() -> None:
    report = check(DATA, "first.pub", detached=[of(plain(statement(OTHER)), FIRST)])
    assert states(report) == ["other patch"]
    assert f"in 0.sig of key {FIRST.key_id} is valid, but for another patch" in fault(report)


@pytest.mark.parametrize("name", ["base", "patch"])
def test_one_that_states_another_material(name: str) -> None:
    stated = statement(DATA)
    for material in stated["predicate"]["materials"]:
        if material["name"] == name:
            material["digest"] = dict.fromkeys(material["digest"], 64 * "0")
    report = check(DATA, "first.pub", detached=[of(plain(stated), FIRST)])
    assert states(report) == ["other patch"]


def test_too_few() -> None:
    trusted = ("first.pub", "second.pub")
    report = check(signed(DATA, FIRST, THIRD), *trusted, require=2)
    assert "1 of 2 trusted keys have signed; 1 more: unknown key" in fault(report)
    with pytest.raises(
        SignatureError, match=r"2 .* must have signed, and there is only 1 \(copies"
    ):
        check(signed(DATA, FIRST), "first.pub", "first.pub", require=2)


def test_the_worst_reason_is_told_first() -> None:
    wrong = [{"keyid": FIRST.key_id, "sig": base64.b64encode(bytes(64)).decode()}]
    beside = [
        of(plain(statement(DATA, "2026-11-30T00:00:00Z")), SECOND),
        of(plain(statement(OTHER)), SECOND),
        envelope(PAYLOAD, wrong),
    ]
    data = signed(DATA, THIRD)
    trusted = ("first.pub", "second.pub")
    reasons = ["is invalid", "for another patch", "expired at", "is not trusted"]
    for count, reason in zip((3, 2, 1, 0), reasons, strict=True):
        assert reason in fault(check(data, *trusted, detached=beside[:count]))


def _swapped(signed_by: list[dict[str, str]]) -> list[dict[str, str]]:
    """The key ids of two signatures exchanged, in the right order again."""
    one, two = signed_by
    return [one | {"sig": two["sig"]}, two | {"sig": one["sig"]}]


def test_key_ids_swapped_within_an_envelope() -> None:
    text = envelope(PAYLOAD, _swapped(signatures(PAYLOAD, FIRST, SECOND)))
    report = check(with_envelope(DATA, text), "first.pub", "second.pub")
    assert states(report) == ["invalid", "invalid"]
    assert "is invalid" in fault(report)


def test_a_signature_under_the_id_of_another_trusted_key() -> None:
    """One who signs cannot count twice, by naming another's key."""
    mine = signatures(PAYLOAD, FIRST)[0]
    both = sorted([mine, mine | {"keyid": SECOND.key_id}], key=lambda one: one["keyid"])
    report = check(with_envelope(DATA, envelope(PAYLOAD, both)), "first.pub", "second.pub")
    assert sorted(states(report)) == ["invalid", "valid"]
    assert len(report.valid) == 1


def test_signatures_swapped_between_patches() -> None:
    """A signature under another statement is invalid; with its own, it is of another patch."""
    other = plain(statement(OTHER))
    moved = envelope(PAYLOAD, signatures(other, FIRST))
    assert states(check(with_envelope(DATA, moved), "first.pub")) == ["invalid"]
    Path("x.patchc").write_bytes(with_envelope(DATA, of(other, FIRST)))
    with pytest.raises(Exception, match=r"x\.patchc: the signatures in the file are about another"):
        open_patch("x.patchc")


def test_signatures_of_other_bytes_than_the_envelope_says() -> None:
    """A signature of the payload alone, or under another payload type, does not count."""
    for message in (
        PAYLOAD,
        b"DSSEv1 1 x %d %b" % (len(PAYLOAD), PAYLOAD),
        b"DSSEv1 28 application/vnd.in-toto+json %d  %b" % (len(PAYLOAD), PAYLOAD),
    ):
        value = base64.b64encode(FIRST.private.sign(message)).decode()
        text = envelope(PAYLOAD, [{"keyid": FIRST.key_id, "sig": value}])
        assert states(check(with_envelope(DATA, text), "first.pub")) == ["invalid"]


def test_every_flip_of_a_signature_and_of_its_key_id() -> None:
    text = of(PAYLOAD, FIRST)
    found = json.loads(text)["signatures"][0]
    value = bytearray(base64.b64decode(found["sig"]))
    Path("x.patchc").write_bytes(DATA)
    with open_patch("x.patchc") as patch:
        for place in range(len(value)):
            value[place] ^= 1 << place % 8
            one = found | {"sig": base64.b64encode(value).decode()}
            value[place] ^= 1 << place % 8
            Path("x.sig").write_bytes(envelope(PAYLOAD, [one]) + b"\n")
            report = check_signatures(patch, [Path("x.sig")], [Path("first.pub")], 1, NOW)
            assert states(report) == ["invalid"], place
        for place in range(64):
            key_id = (
                FIRST.key_id[:place]
                + "0123456789abcdef"[int(FIRST.key_id[place], 16) ^ 1]
                + FIRST.key_id[place + 1 :]
            )
            Path("x.sig").write_bytes(envelope(PAYLOAD, [found | {"keyid": key_id}]) + b"\n")
            report = check_signatures(patch, [Path("x.sig")], [Path("first.pub")], 1, NOW)
            assert states(report) == ["unknown key"], place


def test_a_number_of_keys_that_is_none() -> None:
    for number in (0, -1):
        with pytest.raises(UsageError, match="it must be at least 1"):
            check(DATA, "first.pub", require=number)
