"""Indexes from a stranger: one test for each rejection of names, shapes, chunks and masks."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from forged_patch import numbers, read_all, refuse
from hostile_patch import (
    DTYPES,
    GOLDEN,
    INDEX,
    MASKS,
    RANKS,
    u32,
    with_body,
)

from patchc import open_patch
from patchc.errors import UnsupportedPatchError

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
def test_names_that_are_none_are_refused(
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
    """Each shares 4095 bytes with the one before it: 15 kB of index would become 20 MB."""
    count = 5_000
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
def test_an_impossible_shape_is_refused(tmp_path: Path, size: int) -> None:
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
def test_entries_out_of_range_are_refused(tmp_path: Path, entries: int) -> None:
    refuse(tmp_path, GOLDEN.with_columns(entries=[entries, 1]), "a chunk changes")


@pytest.mark.parametrize("length", [5, 7, 2**16])
def test_bodies_that_leave_holes_or_overlap(tmp_path: Path, length: int) -> None:
    refuse(tmp_path, GOLDEN.with_columns(lengths=[length, 5]), "exactly")


@pytest.mark.parametrize("length", [0, 2**16 + 4 * 128 + 1, 2**32 - 1])
def test_bodies_that_no_chunk_can_have(tmp_path: Path, length: int) -> None:
    refuse(tmp_path, GOLDEN.with_columns(lengths=[length, 5]), "'a': a chunk's body is empty, or")


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
