"""Codec 2: round trips, and equality with the reader made from the specification."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import second_codecs
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchc.dtypes import BY_NAME
from patchc.errors import PatchFormatError
from patchc.formats.codecs import ADDITIVE
from patchc.formats.codecs.additive_values import (
    AdditiveComponent,
    AdditiveValues,
    ComponentEntries,
    ValueType,
)
from patchc.formats.codecs.gap_tiles import decode_positions, encode_positions
from patchc.formats.codecs.protocol import ChunkBody

Case = tuple[int, ValueType, list[ComponentEntries]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Words of a chunk, value type, and the entries of a few components."""
    words = draw(st.sampled_from([1, 2, 300, 65535, 65536, 65537, 200_000]))
    value_type: ValueType = draw(st.sampled_from(["bf16", "int8"]))
    parts = []
    for component in sorted(draw(st.sets(st.integers(0, 3), min_size=1))):
        near = st.integers(0, min(words, 700) - 1)
        found = draw(st.sets(st.one_of(near, st.integers(0, words - 1)), min_size=1, max_size=400))
        rng = np.random.default_rng(draw(st.integers(0, 1000)))
        parts.append(component_entries(component, sorted(found), value_type, rng))
    return words, value_type, parts


def component_entries(
    component: int, positions: list[int], value_type: ValueType, rng: np.random.Generator
) -> ComponentEntries:
    count = len(positions)
    absmax = np.zeros(0, np.float32)
    values = rng.normal(size=count).astype(ml_dtypes.bfloat16).view(np.uint16)
    if value_type == "int8":
        values = rng.integers(-127, 128, count).astype(np.int8)
        absmax = rng.exponential(size=-(-count // 256)).astype(np.float32) + np.float32(1e-30)
    return ComponentEntries(component, np.array(positions, np.uint32), values, absmax)


def touched(parts: list[ComponentEntries]) -> int:
    return len({position for part in parts for position in part.positions.tolist()})


def decode(
    body: bytes, entries: int, words: int, value_type: ValueType, components: int
) -> list[ComponentEntries]:
    values = AdditiveValues(value_type, (AdditiveComponent("se", 1.0, 1),) * components)
    return ADDITIVE.decode_components(
        ChunkBody(body, entries, words, BY_NAME["BF16"], additive=values)
    )


@given(cases())
def test_round_trip_and_second_reader(case: Case) -> None:
    words, value_type, parts = case
    body = ADDITIVE.encode(parts, words)
    decoded = decode(body, touched(parts), words, value_type, 4)
    assert [part.component for part in decoded] == [part.component for part in parts]
    by_hand = second_codecs.additive(body, words, value_type)
    for part, wanted in zip(decoded, parts, strict=True):
        for field in ("positions", "values", "absmax"):
            np.testing.assert_array_equal(getattr(part, field), getattr(wanted, field))
        values = by_hand[part.component]
        assert list(values) == part.positions.tolist()
        if value_type == "bf16":
            plain = part.values.view(ml_dtypes.bfloat16).astype(np.float32)
        else:
            unit = part.absmax / np.float32(127)
            plain = part.values.astype(np.float32) * np.repeat(unit, 256)[: len(part.values)]
        assert list(values.values()) == plain.tolist()


@given(
    words=st.sampled_from([1, 65536, 65537, 200_000]),
    found=st.sets(st.integers(0, 199_999), max_size=300),
    before=st.binary(max_size=3),
)
@example(words=200_000, found={0, 65535, 65536, 199_999}, before=b"")
def test_positions_round_trip_wherever_they_start(
    words: int, found: set[int], before: bytes
) -> None:
    positions = sorted(position for position in found if position < words)
    body = before + encode_positions(np.array(positions, np.uint32), words) + b"rest"
    decoded, end = decode_positions(body, len(before), words, len(positions) + 1)
    assert (decoded.tolist(), body[end:]) == (positions, b"rest")


@pytest.mark.parametrize("density", [0.0001, 0.01, 0.5, 1.0])
def test_dense_and_sparse_chunks_come_back(density: float) -> None:
    words = 1 << 18
    rng = np.random.default_rng(5)
    positions = np.flatnonzero(rng.random(words) < density).astype(np.uint32)
    decoded, _ = decode_positions(encode_positions(positions, words), 0, words, len(positions))
    np.testing.assert_array_equal(decoded, positions)


@pytest.mark.parametrize(("density", "limit"), [(0.001, 11.50), (0.01, 8.11), (0.1, 4.76)])
def test_positions_are_near_the_best_rice_code(density: float, limit: float) -> None:
    words = 1 << 22
    positions = np.flatnonzero(np.random.default_rng(4).random(words) < density).astype(np.uint32)
    bits = 8 * len(encode_positions(positions, words)) / len(positions)
    assert bits < limit * 1.02 + 8 * 6 * (words / 65536) / len(positions)


def test_the_longest_codes_fit() -> None:
    """One far entry after a run of near ones is escaped."""
    positions = np.array([*range(5000), 65535, 131071], np.uint32)
    body = encode_positions(positions, 131072)
    decoded, end = decode_positions(body, 0, 131072, len(positions))
    np.testing.assert_array_equal(decoded, positions)
    assert end == len(body)


def entries(component: int, positions: list[int], values: NDArray) -> ComponentEntries:
    return ComponentEntries(component, np.array(positions, np.uint32), values, np.zeros(0, "f4"))


def test_hand_made_vectors_are_coded_so() -> None:
    bf16 = [
        entries(0, [0, 2], np.array([0x3C80, 0xBC00], np.uint16)),
        entries(1, [3], np.array([0x3D00], np.uint16)),
    ]
    body = bytes.fromhex("00 02 00 01 02 803C 00BC 01 01 01 01 05 003D")
    assert ADDITIVE.encode(bf16, 4) == body
    int8 = entries(1, [0, 1], np.array([127, -3], np.int8))
    int8 = replace(int8, absmax=np.array([0.5], np.float32))
    assert ADDITIVE.encode([int8], 4) == bytes.fromhex("01 02 00 01 00 0000003F 7F FD")


def test_the_record_and_the_body_must_agree() -> None:
    part = component_entries(0, [1, 5], "bf16", np.random.default_rng(1))
    body = ADDITIVE.encode([part], 300)
    for entries in (1, 3):
        with pytest.raises(PatchFormatError):
            decode(body, entries, 300, "bf16", 1)
