"""Codec 1: round trips, and equality with the reader made from the specification."""

from __future__ import annotations

import numpy as np
import pytest
import second_codecs
from hypothesis import example, given
from hypothesis import strategies as st

from patchc.dtypes import BY_NAME
from patchc.errors import PatchFormatError
from patchc.formats.change_bits import ChangeBits
from patchc.formats.codecs import CODECS, RICE
from patchc.formats.codecs.protocol import ChunkBody, Positions, Steps

Decoded = tuple[Positions, Steps]
Changes = tuple[int, int, dict[int, int]]


@st.composite
def changes(draw: st.DrawFn) -> Changes:
    """Words of a chunk, width of a word, position → step: sparse to full, mild to wild steps."""
    width = draw(st.sampled_from([8, 16, 32, 64]))
    words = draw(st.sampled_from([1, 2, 300, 65535, 65536, 65537, 200_000]))
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    mild, wild = st.integers(-3, 3), st.integers(low, high)
    steps = st.one_of(mild, wild, st.sampled_from([low, high])).filter(bool)
    near = st.integers(0, min(words, 70) - 1)
    positions = st.one_of(near, st.integers(0, words - 1))
    return words, width, draw(st.dictionaries(positions, steps, min_size=1, max_size=60))


def encode(words: int, width: int, found: dict[int, int]) -> bytes:
    ordered = sorted(found.items())
    positions = np.array([position for position, _ in ordered], np.uint32)
    steps = np.array([step for _, step in ordered], np.int64)
    return RICE.encode(positions, steps, words, width).body


def decode(body: bytes, entries: int, words: int, width: int) -> Decoded:
    return RICE.decode(ChunkBody(body, entries, words, BY_NAME[f"U{width}"]))


@given(changes())
@example((1, 8, {0: -128}))
@example((65536, 64, {65535: 2**63 - 1}))
@example((200_000, 64, {0: -(2**63), 199_999: 1}))
def test_round_trip_and_second_reader(case: Changes) -> None:
    words, width, found = case
    body = encode(words, width, found)
    positions, steps = decode(body, len(found), words, width)
    decoded = list(zip(positions.tolist(), steps.tolist(), strict=True))
    assert decoded == sorted(found.items())
    assert second_codecs.rice(body, words, width) == decoded


@pytest.mark.parametrize("density", [0.0001, 0.001, 0.01, 0.1, 0.5, 1.0])
def test_dense_and_sparse_chunks_come_back(density: float) -> None:
    rng = np.random.default_rng(3)
    words = 1 << 18
    positions = np.flatnonzero(rng.random(words) < density).astype(np.uint32)
    steps = rng.choice(np.array([-2, -1, 1, 2]), len(positions))
    body = RICE.encode(positions, steps, words, 16).body
    decoded = decode(body, len(positions), words, 16)
    np.testing.assert_array_equal(decoded[0], positions)
    np.testing.assert_array_equal(decoded[1], steps)


@pytest.mark.parametrize(("density", "limit"), [(0.001, 11.50), (0.01, 8.11), (0.1, 4.76)])
def test_size_is_near_the_best_rice_code(density: float, limit: float) -> None:
    """Positions of a random mask against the best expected length; a step takes 2 bits."""
    rng = np.random.default_rng(4)
    words = 1 << 22
    positions = np.flatnonzero(rng.random(words) < density).astype(np.uint32)
    steps = rng.choice(np.array([-1, 1]), len(positions))
    bits = 8 * len(RICE.encode(positions, steps, words, 16).body) / len(positions)
    headers = 8 * 7 * (words / 65536) / len(positions)
    assert bits < limit * 1.02 + 2 + headers


def test_a_hand_made_vector_is_coded_so() -> None:
    found = {0: 1, 1: -1, 2: 3}
    assert encode(4, 16, found) == bytes.fromhex("0300 0102 a001")
    assert encode(4, 32, {3: -2}) == bytes.fromhex("0101 0101 2d")


def test_the_record_and_the_body_must_agree() -> None:
    body = encode(300, 16, {5: 1, 9: -4})
    for entries in (1, 3):
        with pytest.raises(PatchFormatError):
            decode(body, entries, 300, 16)


def test_ids_are_stable() -> None:
    assert {number: codec.name for number, codec in CODECS.items()} == {
        1: "rice",
        2: "additive",
        3: "conditional",
    }


def test_bits_are_split_into_positions_and_steps() -> None:
    """Six changes in one tile: gaps of 3 with parameter 2, steps of +1 with parameter 0."""
    positions = np.arange(6, dtype=np.uint32) * 4 + 3
    coding = RICE.encode(positions, np.ones(6, np.int64), 1000, 16)
    assert coding.bits == ChangeBits(positions=6 * 3, values=6)
    assert len(coding.body) == 4 + 3
