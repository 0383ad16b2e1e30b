"""Bodies from a stranger: one test for each rejection, then flips, cuts and mutations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from forged_patch import Parts, read_all, read_or_refuse, refuse
from hostile_patch import (
    CODECS,
    DTYPES,
    GOLDEN,
    INDEX,
    bits,
    with_body,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchc import open_patch, verify
from patchc.errors import PatchFormatError, UnsupportedPatchError
from patchc.hashing import bodies_digest


def test_a_body_that_only_the_digest_over_all_bodies_betrays(tmp_path: Path) -> None:
    """What a body of the same short digest would look like: decodable, and not the promised one."""
    path = tmp_path / "x.patchc"
    for digest in (bytes(32), INDEX.bodies_digest[:-1] + b"\0", INDEX.base_digest):
        assert read_all(path, GOLDEN.with_columns(bodies_digest=digest).assemble()) == 4
        with pytest.raises(PatchFormatError, match=r"x\.patchc: the digest over all chunk bodies"):
            verify(path)


def test_bodies_in_another_order_fail_the_digest_over_all(tmp_path: Path) -> None:
    """Both bodies code one change at word 3; only the digest over both knows which is whose."""
    first, second = b"\x01\x01\x01\x01\x2d", b"\x01\x02\x01\x01\x16"
    both = with_body(first, entries=1)
    digests = [blake3(body).digest() for body in (first, second)]
    whole = bodies_digest(b"".join(digests))
    parts = both.but(bodies=first + second)
    parts = parts.with_columns(body_digests=[d[:8] for d in digests], bodies_digest=whole)
    path = tmp_path / "x.patchc"
    path.write_bytes(parts.assemble())
    assert verify(path).state == "intact"
    swapped = parts.but(bodies=second + first)
    swapped = swapped.with_columns(body_digests=[d[:8] for d in digests[::-1]])
    assert read_all(path, swapped.assemble()) == 2
    with pytest.raises(PatchFormatError, match="the digest over all chunk bodies"):
        verify(path)


def test_bodies_not_read_before_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "x.patchc"
    path.write_bytes(GOLDEN.assemble())
    with open_patch(path) as patch:
        patch.check_bodies()
    path.write_bytes(GOLDEN.but(bodies=GOLDEN.bodies[:-1] + b"\0").assemble())
    with open_patch(path) as patch:
        patch.read_changes(patch.index.tensors["a"], patch.index.chunk(0))
        with pytest.raises(PatchFormatError, match="'b', chunk 0: its bytes are damaged"):
            patch.check_bodies()


def test_a_damaged_body_is_named(tmp_path: Path) -> None:
    bodies = GOLDEN.bodies[:4] + b"\xa1" + GOLDEN.bodies[5:]
    refuse(tmp_path, GOLDEN.but(bodies=bodies), "'a', chunk 0: its bytes are damaged")


def test_entries_that_the_body_cannot_hold(tmp_path: Path) -> None:
    refuse(tmp_path, with_body(b"\x00", entries=1 << 12, words=1 << 12), "too short")


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(CODECS, b"\x63"), "codec 99", UnsupportedPatchError)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "exactly|ends early|too short|is empty"),
        (b"\x80", "ends early"),
        (b"\x80\x80\x80\x80\x80\x01", "ends early"),
        (b"\x03", "ends early"),
        (b"\x03\x00", "ends early"),
        (b"\x03\x00\x01", "ends early"),
        (b"\x03\x00\x01\x02\xa0", "ends early"),
        (b"\x03\x00\x01\x01\xa0", "ends early"),
        (b"\x03\x00\x01\x02\xa0\x01\x00", "belong to nothing"),
        (b"\x03\x00\x01\x03\xa0\x01\x00", "belong to nothing"),
        (b"\x03\x00\x01\x02\xa0\x81", "belong to nothing"),
        (b"\x03\x10\x01\x02\xa0\x01", "out of range"),
        (b"\x03\x00\x10\x02\xa0\x01", "out of range"),
        (b"\x05\x00\x01\x02\xa0\x01", "out of range"),
        (b"\x02\x00\x01\x01\x20", "codes 2 changes and its record says 3"),
        (b"\x00", "codes 0 changes and its record says 3"),
    ],
)
def test_bodies_that_are_no_coding(tmp_path: Path, body: bytes, match: str) -> None:
    refuse(tmp_path, with_body(body), match)


def one_change(stream: str, step_parameter: int = 1) -> Parts:
    coded = bits(stream)
    return with_body(bytes([1, 0, step_parameter, len(coded)]) + coded, entries=1)


def test_hand_coded_extremes_are_read(tmp_path: Path) -> None:
    lowest = "0" + "1" * 24 + "1" * 16
    highest = "0" + "1" * 24 + "0" * 2 + "1" * 14
    for stream in (lowest, highest, "1110" + "00"):
        assert read_all(tmp_path / "x.patchc", one_change(stream).assemble()) == 2


def test_a_position_outside_its_chunk(tmp_path: Path) -> None:
    refuse(tmp_path, one_change("11110" + "00"), "out of range")


def test_an_escaped_gap_outside_its_chunk(tmp_path: Path) -> None:
    refuse(tmp_path, one_change("1" * 24 + "1" * 16 + "00"), "out of range")


def test_a_step_that_its_word_cannot_hold(tmp_path: Path) -> None:
    refuse(tmp_path, one_change("0" + "1" * 24 + "0" + "1" * 15), "out of range")
    refuse(tmp_path, one_change("0" + "1110" + "1" * 15, step_parameter=15), "out of range")


def test_a_code_beyond_64_bits(tmp_path: Path) -> None:
    parts = one_change("0" + "1110" + "0" * 63, step_parameter=63).with_index(DTYPES, b"\x08")
    refuse(tmp_path, parts, "out of range")


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    data = GOLDEN.assemble()
    for at in range(len(data)):
        damaged = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
        with pytest.raises((PatchFormatError, UnsupportedPatchError)):
            read_all(tmp_path / "x.patchc", damaged)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    data = GOLDEN.assemble()
    for size in range(len(data)):
        with pytest.raises(PatchFormatError):
            read_all(tmp_path / "x.patchc", data[:size])


Mutate = Callable[[bytes], bytes]


@st.composite
def mutations(draw: st.DrawFn) -> Mutate:
    places = draw(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6))
    cut = draw(st.one_of(st.none(), st.integers(0, 400)))

    def mutate(data: bytes) -> bytes:
        changed = bytearray(data)
        for place, value in places:
            if changed:
                changed[place % len(changed)] = value
        return bytes(changed) if cut is None else bytes(changed[:cut])

    return mutate


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations(), mutations(), st.integers(0, 2**64 - 1))
def test_mutated_sections_with_a_matching_root(
    tmp_path: Path, index: Mutate, metadata: Mutate, features: int
) -> None:
    parts = GOLDEN.but(index=index(GOLDEN.index), metadata=metadata(GOLDEN.metadata))
    read_or_refuse(tmp_path / "x.patchc", parts, 4 << 20)
    read_or_refuse(tmp_path / "x.patchc", parts.but(features=features), 4 << 20)


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.integers(1, 5000), st.sampled_from([2, 11, 13, 10, 22]))
def test_any_body_with_a_matching_digest(
    tmp_path: Path, body: bytes, entries: int, dtype: int
) -> None:
    parts = with_body(body, entries=entries, words=5000).with_index(DTYPES, bytes([dtype]))
    read_or_refuse(tmp_path / "x.patchc", parts, 4 << 20)
