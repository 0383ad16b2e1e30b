"""Files from a stranger: one test for each rejection, then flips, cuts and mutations."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from forged_patch import Parts, golden_parts, read_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchc import open_patch
from patchc.errors import PatchcError, PatchFormatError, UnsupportedPatchError

GOLDEN = golden_parts()

# Offsets in the expanded index of the worked example (formats/SPEC.md, section 8.2).
TENSORS, CHUNKS, NAME_LENGTHS, NAMES, DTYPES, RANKS, DIMENSIONS = 0, 4, 72, 80, 84, 88, 92
CHUNK_COUNTS, NUMBERS, CODECS, ENTRIES, LENGTHS, BODY_DIGESTS = 196, 212, 220, 222, 230, 238


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def with_body(body: bytes, entries: int = 3, words: int = 4) -> Parts:
    """The worked example with another body for the chunk of `a`, its digest made to fit."""
    padded = body + bytes(-len(body) % 8)
    return (
        GOLDEN.but(bodies=padded + GOLDEN.bodies[8:])
        .with_index(LENGTHS, u32(len(body)))
        .with_index(BODY_DIGESTS, blake3(body).digest()[:16])
        .with_index(ENTRIES, u32(entries))
        .with_index(DIMENSIONS, u64(words))
    )


def refuse(
    tmp_path: Path, parts: Parts, match: str, error: type[PatchcError] = PatchFormatError
) -> None:
    with pytest.raises(error, match=match) as caught:
        read_all(tmp_path / "x.patchc", parts.assemble())
    assert str(tmp_path / "x.patchc") in str(caught.value)


def test_the_untouched_parts_are_accepted(tmp_path: Path) -> None:
    assert read_all(tmp_path / "x.patchc", GOLDEN.assemble()) == 4


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PatchFormatError, match=r"no\.patchc: cannot open"):
        open_patch(tmp_path / "no.patchc")


def test_a_folder_is_no_patch(tmp_path: Path) -> None:
    with pytest.raises(PatchFormatError):
        open_patch(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 111])
def test_too_short(tmp_path: Path, size: int) -> None:
    with pytest.raises(PatchFormatError, match="truncated"):
        read_all(tmp_path / "x.patchc", GOLDEN.assemble()[:size])


def test_wrong_magic(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(prologue=b"SAFETENS" + GOLDEN.prologue[8:]), "not a patch file")


def test_newline_conversion_is_noticed(tmp_path: Path) -> None:
    data = GOLDEN.assemble().replace(b"\r\n", b"\n")
    with pytest.raises(PatchFormatError):
        read_all(tmp_path / "x.patchc", data)


def test_another_major_version_is_named(tmp_path: Path) -> None:
    parts = GOLDEN.but(prologue=GOLDEN.prologue[:8] + b"\x02\x00" + GOLDEN.prologue[10:])
    refuse(tmp_path, parts, "format version 2", UnsupportedPatchError)


def test_a_later_minor_version_is_read(tmp_path: Path) -> None:
    parts = GOLDEN.but(prologue=GOLDEN.prologue[:10] + b"\x07\x00" + GOLDEN.prologue[12:])
    assert read_all(tmp_path / "x.patchc", parts.assemble()) == 4


@pytest.mark.parametrize("bits", [0, 11, 23, 63, 255])
def test_chunk_bits_out_of_range(tmp_path: Path, bits: int) -> None:
    parts = GOLDEN.but(prologue=GOLDEN.prologue[:12] + bytes([bits]) + GOLDEN.prologue[13:])
    refuse(tmp_path, parts, "prologue")


@pytest.mark.parametrize("at", [13, 14, 15])
def test_reserved_bytes(tmp_path: Path, at: int) -> None:
    prologue = GOLDEN.prologue[:at] + b"\x01" + GOLDEN.prologue[at + 1 :]
    refuse(tmp_path, GOLDEN.but(prologue=prologue), "prologue")


def test_trailing_bytes(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(tail=b"\0"), "trailer")


def test_unknown_features_are_named(tmp_path: Path) -> None:
    parts = GOLDEN.but(features=1 << 5 | 1 << 63)
    refuse(tmp_path, parts, "feature 5, 63", UnsupportedPatchError)


def test_a_signature_is_refused(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(signature=64), "signed", UnsupportedPatchError)


@pytest.mark.parametrize("offset", [0, 8, 15, 24, 40, 2**63, 2**64 - 8])
def test_index_offset_that_does_not_add_up(tmp_path: Path, offset: int) -> None:
    refuse(tmp_path, GOLDEN.but(index_offset=offset), "add up")


@pytest.mark.parametrize("size", [2**30 + 1, 2**63])
def test_index_size_above_the_cap(tmp_path: Path, size: int) -> None:
    refuse(tmp_path, GOLDEN.but(index_size=size), "cap")


@pytest.mark.parametrize("size", [2**26 + 1, 2**64 - 1])
def test_metadata_size_above_the_cap(tmp_path: Path, size: int) -> None:
    refuse(tmp_path, GOLDEN.but(metadata_size=size), "cap")


def test_a_size_that_deflate_cannot_reach(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(metadata_size=2**23), "cannot hold")


def test_a_bomb_expands_no_further_than_declared(tmp_path: Path) -> None:
    bomb = GOLDEN.but(metadata=bytes(60 << 20), metadata_size=1000)
    data = bomb.assemble()
    tracemalloc.start()
    with pytest.raises(PatchFormatError, match="metadata"):
        read_all(tmp_path / "x.patchc", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("change", [-1, 1])
def test_sections_of_another_size_than_declared(tmp_path: Path, change: int) -> None:
    refuse(tmp_path, GOLDEN.but(index_size=len(GOLDEN.index) + change), "index")
    refuse(tmp_path, GOLDEN.but(metadata_size=len(GOLDEN.metadata) + change), "metadata")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b"{",
        b"\xff\xfe",
        '{"a": 1}'.encode("utf-16"),
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
def test_metadata_that_is_no_json_object(tmp_path: Path, text: bytes) -> None:
    refuse(tmp_path, GOLDEN.but(metadata=text), "metadata")


def test_more_tensors_than_the_cap(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(TENSORS, u32(2**32 - 1)), "above the cap")


def test_more_tensors_than_the_index_holds(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(TENSORS, u32(1 << 20)), "shorter")


def test_more_chunks_than_the_index_holds(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(CHUNKS, u32(2**32 - 1)), "index")


def test_chunk_counts_that_do_not_add_up(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(CHUNK_COUNTS, u32(2**32 - 1)), "add up")


def test_an_index_longer_than_its_counts(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(index=GOLDEN.index + b"\0"), "longer")


@pytest.mark.parametrize("names", [b"aacd", b"bacd", b"abcc"])
def test_names_that_are_not_unique_and_sorted(tmp_path: Path, names: bytes) -> None:
    refuse(tmp_path, GOLDEN.with_index(NAMES, names), "unique and sorted")


@pytest.mark.parametrize("first", [b"/", b"\\", b"\x00", b"\x1b", b"\n"])
def test_path_like_or_unprintable_name(tmp_path: Path, first: bytes) -> None:
    refuse(tmp_path, GOLDEN.with_index(NAMES, first), "tensor name")


def test_a_name_that_is_no_utf_8(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(NAMES, b"abc\xff"), "UTF-8")


def test_an_empty_name(tmp_path: Path) -> None:
    lengths = struct.pack("<4H", 0, 1, 1, 2)
    refuse(tmp_path, GOLDEN.with_index(NAME_LENGTHS, lengths), "tensor name")


def test_an_unknown_dtype_is_named(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(DTYPES, b"\xc8"), "dtype code 200", UnsupportedPatchError)


def test_a_rank_that_eats_the_index(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(RANKS, b"\xff\xff\xff\xff"), "shorter")


@pytest.mark.parametrize("size", [2**62 + 1, 2**64 - 1])
def test_an_impossible_shape(tmp_path: Path, size: int) -> None:
    refuse(tmp_path, GOLDEN.with_index(DIMENSIONS, u64(size)), "impossible shape")


def test_a_packed_tensor_that_does_not_fill_bytes(tmp_path: Path) -> None:
    parts = GOLDEN.with_index(DTYPES + 2, bytes([21]))
    refuse(tmp_path, parts, "'c' has an impossible shape")


@pytest.mark.parametrize("number", [1, 2**32 - 1])
def test_a_chunk_outside_its_tensor(tmp_path: Path, number: int) -> None:
    refuse(tmp_path, GOLDEN.with_index(NUMBERS, u32(number)), "chunk numbers")


def test_a_chunk_stored_twice(tmp_path: Path) -> None:
    counts = struct.pack("<4I", 2, 0, 0, 0)
    parts = GOLDEN.with_index(CHUNK_COUNTS, counts).with_index(DIMENSIONS, u64(5000))
    refuse(tmp_path, parts, "chunk numbers")


@pytest.mark.parametrize("entries", [0, 5, 2**32 - 1])
def test_entries_out_of_range(tmp_path: Path, entries: int) -> None:
    refuse(tmp_path, GOLDEN.with_index(ENTRIES, u32(entries)), "a chunk changes")


@pytest.mark.parametrize("length", [0, 14, 2**32 - 1])
def test_bodies_that_leave_holes_or_overlap(tmp_path: Path, length: int) -> None:
    refuse(tmp_path, GOLDEN.with_index(LENGTHS, u32(length)), "exactly")


def test_padding_that_is_not_zero(tmp_path: Path) -> None:
    bodies = GOLDEN.bodies[:7] + b"\x01" + GOLDEN.bodies[8:]
    refuse(tmp_path, GOLDEN.but(bodies=bodies), "'a', chunk 0: its bytes are damaged")


def test_a_damaged_body(tmp_path: Path) -> None:
    bodies = GOLDEN.bodies[:4] + b"\xa1" + GOLDEN.bodies[5:]
    refuse(tmp_path, GOLDEN.but(bodies=bodies), "'a', chunk 0: its bytes are damaged")


def test_entries_that_the_body_cannot_hold(tmp_path: Path) -> None:
    refuse(tmp_path, with_body(b"\x00", entries=1 << 12, words=1 << 12), "too short")


def test_an_unknown_codec_is_named(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(CODECS, b"\x63"), "codec 99", UnsupportedPatchError)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "exactly|ends early|too short"),
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


def bits(text: str) -> bytes:
    """A stream of section 6.1 from its bits in order."""
    text = text.replace(" ", "")
    padded = text + "0" * (-len(text) % 8)
    return bytes(int(padded[i : i + 8][::-1], 2) for i in range(0, len(padded), 8))


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


def opens_or_refuses(path: Path, parts: Parts) -> None:
    tracemalloc.start()
    try:
        read_all(path, parts.assemble())
    except (PatchFormatError, UnsupportedPatchError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20


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
    opens_or_refuses(tmp_path / "x.patchc", parts)
    opens_or_refuses(tmp_path / "x.patchc", parts.but(features=features))


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.integers(1, 5000), st.sampled_from([2, 11, 13, 10, 22]))
def test_any_body_with_a_matching_digest(
    tmp_path: Path, body: bytes, entries: int, dtype: int
) -> None:
    parts = with_body(body, entries=entries, words=5000).with_index(DTYPES, bytes([dtype]))
    opens_or_refuses(tmp_path / "x.patchc", parts)
