"""Files from a stranger: one test for each rejection, then flips, cuts and mutations."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from forged_patch import Parts, golden_parts, numbers, read_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from second_reader import read_index

from patchc import inspect, open_patch, verify
from patchc.errors import PatchcError, PatchFormatError, UnsupportedPatchError
from patchc.hashing import bodies_digest, root_digest

GOLDEN = golden_parts()

INDEX = read_index(GOLDEN.index)

# Offsets in the expanded index of the worked example (formats/SPEC.md, section 8.2).
TENSORS, CHUNKS, MASKS, THRESHOLD, SHARED, RESTS = 0, 4, 8, 20, 28, 33
DTYPES, RANKS, DIMENSIONS, COUNTS, SKIPS, CODECS = 42, 46, 50, 56, 61, 64


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def with_body(body: bytes, entries: int = 3, words: int = 4) -> Parts:
    """The worked example with another body for the chunk of `a`, its digests made to fit."""
    rest = GOLDEN.bodies[INDEX.lengths[0] :]
    digests = [blake3(part).digest() for part in (body, rest)]
    pinned = words <= 1 << GOLDEN.prologue[12]
    return GOLDEN.but(bodies=body + rest).with_columns(
        lengths=[len(body), len(rest)],
        entries=[entries, 1],
        dims=[words, *INDEX.dims[1:]],
        tensor_digests=INDEX.tensor_digests if pinned else [bytes(8), *INDEX.tensor_digests],
        bodies_digest=bodies_digest(b"".join(digests)),
        body_digests=[digest[:8] for digest in digests],
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


@pytest.mark.parametrize(
    ("major", "minor", "remedy"),
    [(1, 0, "build the patch again"), (1, 1, "build the patch again"), (3, 0, "update patchc")],
)
def test_another_major_version_is_named(
    tmp_path: Path, major: int, minor: int, remedy: str
) -> None:
    version = struct.pack("<HH", major, minor)
    parts = GOLDEN.but(prologue=GOLDEN.prologue[:8] + version + GOLDEN.prologue[12:])
    match = rf"format version {major}\.{minor} is not supported.*reads version 2.*{remedy}"
    refuse(tmp_path, parts, match, UnsupportedPatchError)


def test_a_file_of_version_1_is_refused_by_its_number(tmp_path: Path) -> None:
    """The smallest whole file that version 1.0 could hold: no tensor, an empty object."""
    index, metadata = zlib.compress(bytes(72)), zlib.compress(b"{}")
    prologue = b"PATCHC\r\n" + struct.pack("<HHBBH", 1, 0, 20, 0, 0)
    head = struct.pack("<6Q", 16, len(index), 72, len(metadata), 2, 0)
    root = root_digest((prologue, index, metadata, head))
    data = prologue + index + metadata + head + root + bytes(8) + b"\r\nPATCHC"
    for read in (open_patch, verify, inspect):
        path = tmp_path / "old.patchc"
        path.write_bytes(data)
        with pytest.raises(UnsupportedPatchError, match=r"old\.patchc: format version 1\.0 is"):
            read(path)


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


@pytest.mark.parametrize("offset", [0, 8, 15, 26, 28, 2**63, 2**64 - 8])
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
    refuse(tmp_path, GOLDEN.with_index(TENSORS, u32(1 << 18)), "shorter")


def test_more_chunks_than_the_cap(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(CHUNKS, u32((1 << 21) + 1)), "chunks, above the cap")


def test_more_chunks_than_the_index_holds(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(CHUNKS, u32(1 << 21)), "shorter")


@pytest.mark.parametrize("counts", [[2, 1, 0, 0], [1, 0, 0, 0], [1, 2**32 - 1, 0, 0]])
def test_chunk_counts_that_do_not_add_up(tmp_path: Path, counts: list[int]) -> None:
    refuse(tmp_path, GOLDEN.with_columns(counts=counts), "add up")


def test_an_index_longer_than_its_counts(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.but(index=GOLDEN.index + b"\0"), "longer")


def test_an_index_shorter_than_its_counts(tmp_path: Path) -> None:
    for length in range(len(GOLDEN.index)):
        refuse(tmp_path, GOLDEN.but(index=GOLDEN.index[:length]), "index")


@pytest.mark.parametrize("width", [0, 3, 5, 9, 255])
@pytest.mark.parametrize("column", [SHARED, SHARED + 5])
def test_a_column_of_an_impossible_width(tmp_path: Path, column: int, width: int) -> None:
    refuse(tmp_path, GOLDEN.with_index(column, bytes([width])), "width out of range")


@pytest.mark.parametrize(
    "column",
    [
        {"counts": [1, 1, 0, 2**32]},
        {"skips": [0, 2**32]},
        {"entries": [3, 2**40]},
        {"lengths": [6, 2**32]},
        {"rests": [b"a", b"b", b"c", bytes(1 << 16)]},
    ],
)
def test_numbers_wider_than_their_column_may_be(tmp_path: Path, column: dict[str, Any]) -> None:
    refuse(tmp_path, GOLDEN.with_columns(**column), "width out of range")


def test_wider_columns_than_needed_are_read(tmp_path: Path) -> None:
    head, dims = GOLDEN.index[:DIMENSIONS], struct.pack("<5Q", *INDEX.dims)
    planes = bytes(dims[8 * i + k] for k in range(8) for i in range(5))
    assert GOLDEN.index[DIMENSIONS:COUNTS] == numbers(INDEX.dims)
    wide = GOLDEN.but(index=head + b"\x08" + planes + GOLDEN.index[COUNTS:])
    assert read_all(tmp_path / "x.patchc", wide.assemble()) == 4


NAMES = "unique and sorted"


@pytest.mark.parametrize(
    ("shared", "rests", "match"),
    [
        ([0, 0, 0, 1], [b"a", b"a", b"c", b"d"], NAMES),
        ([0, 1, 0, 1], [b"a", b"", b"c", b"d"], NAMES),
        ([0, 0, 0, 1], [b"b", b"a", b"c", b"d"], NAMES),
        ([0, 0, 0, 0], [b"a", b"b", b"c", b"c"], NAMES),
        ([0, 0, 0, 0], [b"", b"b", b"c", b"d"], NAMES),
        ([1, 0, 0, 1], [b"a", b"b", b"c", b"d"], "shares more"),
        ([0, 0, 0, 2], [b"a", b"b", b"c", b"d"], "shares more"),
        ([0, 0, 0, 1], [b"a", b"b", b"c", b"\xff"], "UTF-8"),
        ([0, 0, 0, 1], [b"a", b"b", "ä".encode(), b"\xc3"], "UTF-8"),
        ([0, 0, 0, 1], [b"a", b"b", b"c", b"x" * 4096], "unacceptable tensor name"),
    ],
)
def test_names_that_are_none(
    tmp_path: Path, shared: list[int], rests: list[bytes], match: str
) -> None:
    refuse(tmp_path, GOLDEN.with_columns(shared=shared, rests=rests), match)


def test_a_name_may_share_part_of_a_character(tmp_path: Path) -> None:
    rests = [b"a", b"b", "ä".encode(), "ö".encode()[1:]]
    parts = GOLDEN.with_columns(shared=[0, 0, 0, 1], rests=rests)
    assert read_all(tmp_path / "x.patchc", parts.assemble()) == 4


@pytest.mark.parametrize("name", [b"/", b"\\", b"\x00", b"\x1b", b"\n", b"a/b"])
def test_path_like_or_unprintable_name(tmp_path: Path, name: bytes) -> None:
    parts = GOLDEN.with_columns(shared=[0, 0, 0, 0], rests=[name, b"b", b"c", b"d"])
    refuse(tmp_path, parts, "tensor name")


def test_names_that_expand_above_their_cap(tmp_path: Path) -> None:
    """Each shares 4095 bytes with the one before it: 25 kB of index would become 100 MB."""
    count = 25_000
    rests = [b"x" * 4095 + b"a", *[b"b"] * (count - 1)]
    index = u32(count) + u32(0) + b"\0" + numbers([0] + [4095] * (count - 1))
    index += numbers([len(rest) for rest in rests]) + b"".join(rests)
    tracemalloc.start()
    refuse(tmp_path, GOLDEN.but(index=index), "names are above the size cap")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_an_unknown_dtype_is_named(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(DTYPES, b"\xc8"), "dtype code 200", UnsupportedPatchError)


@pytest.mark.parametrize("rank", [17, 255])
def test_more_dimensions_than_the_cap(tmp_path: Path, rank: int) -> None:
    refuse(tmp_path, GOLDEN.with_index(RANKS, bytes([rank])), "too many dimensions")


def test_a_rank_that_eats_the_index(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(RANKS, b"\x10\x10\x10\x10"), "add up|shorter|width")


@pytest.mark.parametrize("size", [2**62 + 1, 2**64 - 1])
def test_an_impossible_shape(tmp_path: Path, size: int) -> None:
    parts = GOLDEN.with_columns(dims=[size, *INDEX.dims[1:]])
    refuse(tmp_path, parts, "impossible shape")


def test_a_packed_tensor_that_does_not_fill_bytes(tmp_path: Path) -> None:
    parts = GOLDEN.with_index(DTYPES + 2, bytes([21]))
    refuse(tmp_path, parts, "'c' has an impossible shape")


@pytest.mark.parametrize(("words", "skip"), [(4, 1), (4, 2**32 - 1), (4097, 2), (4097, 2**31)])
def test_a_chunk_outside_its_tensor(tmp_path: Path, words: int, skip: int) -> None:
    parts = with_body(GOLDEN.bodies[:6], words=words).with_columns(skips=[skip, 0])
    refuse(tmp_path, parts, "'a': its chunk numbers are out of range")


def test_a_chunk_number_above_32_bits(tmp_path: Path) -> None:
    forged = GOLDEN.with_columns(
        dims=[2**62, *INDEX.dims[1:]],
        counts=[2, 0, 0, 0],
        tensor_digests=[bytes(8), bytes(8), *INDEX.tensor_digests],
    )
    last = forged.with_columns(skips=[2**32 - 2, 0])
    assert read_all(tmp_path / "x.patchc", last.assemble()) == 4
    refuse(tmp_path, forged.with_columns(skips=[2**32 - 1, 0]), "'a': its chunk numbers")


@pytest.mark.parametrize("entries", [0, 5, 2**32 - 1])
def test_entries_out_of_range(tmp_path: Path, entries: int) -> None:
    refuse(tmp_path, GOLDEN.with_columns(entries=[entries, 1]), "a chunk changes")


@pytest.mark.parametrize("length", [0, 5, 7, 2**32 - 1])
def test_bodies_that_leave_holes_or_overlap(tmp_path: Path, length: int) -> None:
    refuse(tmp_path, GOLDEN.with_columns(lengths=[length, 5]), "exactly")


@pytest.mark.parametrize("digests", [[], [bytes(8)] * 2])
def test_digests_for_the_unpinned_tensors_alone(tmp_path: Path, digests: list[bytes]) -> None:
    refuse(tmp_path, GOLDEN.with_columns(tensor_digests=digests), "the index is (shorter|longer)")


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (("", 7, 1), "unacceptable retention mask"),
        (("s" * 65, 7, 1), "unacceptable retention mask"),
        (("s\n", 7, 1), "unacceptable retention mask"),
        (("se", 7, 2**32 + 1), "unacceptable retention mask"),
        (("se", 7, 2**64 - 1), "unacceptable retention mask"),
    ],
)
def test_a_mask_that_is_none(tmp_path: Path, mask: tuple[str, int, int], match: str) -> None:
    refuse(tmp_path, GOLDEN.with_columns(masks=[*INDEX.masks, mask]), match)


def test_a_mask_of_a_component_that_is_no_utf_8(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(MASKS + 2, b"\xff"), "component is not UTF-8")


def test_more_masks_than_the_cap(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_columns(masks=INDEX.masks * 17), "17 retention masks, above")
    refuse(tmp_path, GOLDEN.with_index(MASKS, b"\xff"), "255 retention masks, above")


def test_more_masks_than_the_index_holds(tmp_path: Path) -> None:
    refuse(tmp_path, GOLDEN.with_index(MASKS, b"\x10"), "index|mask")


def test_masks_at_the_edge_are_read(tmp_path: Path) -> None:
    masks = [("s" * 64, 2**64 - 1, 2**32), ("ä" * 32, 0, 0), *[("se", 7, 1)] * 14]
    path = tmp_path / "x.patchc"
    assert read_all(path, GOLDEN.with_columns(masks=masks).assemble()) == 4
    with open_patch(path) as patch:
        found = [(mask.component, mask.seed, mask.threshold) for mask in patch.index.masks]
    assert found == masks


def test_a_body_that_only_the_digest_over_all_bodies_betrays(tmp_path: Path) -> None:
    """What a body of the same short digest would look like: decodable, and not the promised one."""
    path = tmp_path / "x.patchc"
    for digest in (bytes(32), INDEX.bodies_digest[:-1] + b"\0", INDEX.base_digest):
        assert read_all(path, GOLDEN.with_columns(bodies_digest=digest).assemble()) == 4
        with pytest.raises(PatchFormatError, match=r"x\.patchc: the digest over all chunk bodies"):
            verify(path)


def test_bodies_in_another_order(tmp_path: Path) -> None:
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
