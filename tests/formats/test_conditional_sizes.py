"""Codec 3: how large its bodies are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import conditional_oracle as oracle
import numpy as np
import pytest
from conditional_cases import (
    WORDS,
    Case,
    assert_round_trip,
    cases,
    change,
    chosen_words,
    gaussian,
    late_cases,
    words_like,
)
from hypothesis import example, given, settings

from patchc.dtypes import BY_NAME
from patchc.formats.codecs import CONDITIONAL, RICE
from patchc.formats.codecs.conditional.model.chunk_model import EDGES, POPULATIONS, empty_model
from patchc.formats.codecs.protocol import ExactChanges
from patchc.formats.codecs.shortest import encode_shortest


def random_bytes() -> Case:
    """A hundred bytes, all replaced: no table of their steps pays."""
    base, result = np.random.default_rng(1).permutation(200).astype(np.uint8).reshape(2, 100)
    return Case(BY_NAME["U8"], base, result)


def conditional_entropy(case: Case) -> float:
    """Bits of mask and steps given the base's exponent."""
    mantissa, bits = oracle.EXPONENTS[case.dtype.name]
    exponents = (case.base.astype(np.int64) >> mantissa) & ((1 << bits) - 1)
    total = 0.0
    for exponent in np.unique(exponents):
        own = np.flatnonzero(exponents == exponent)
        changed = own[np.isin(own, case.positions)]
        hits, held = len(changed), len(own)
        if 0 < hits < held:
            total += hits * np.log2(held / hits)
            total += (held - hits) * np.log2(held / (held - hits))
        if hits:
            at = np.searchsorted(case.positions, changed)
            _, counts = np.unique(case.steps[at], return_counts=True)
            total -= float((counts * np.log2(counts / hits)).sum())
    return total


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("density", [0.003, 0.03, 0.3, 3.0])
def test_sizes_are_near_the_conditional_entropy(dtype: str, density: float) -> None:
    case = gaussian(density, 1 << 18, dtype)
    body = case.encode()
    assert_round_trip(case, body)
    slack = 1.05 if density < 1 else 1.1  # dense changes move words across exponents
    assert 8 * len(body) < slack * conditional_entropy(case) + 500


def test_bits_are_split_into_positions_and_steps() -> None:
    """One exponent: a tenth of the words change, each by +1 or −1."""
    rng = np.random.default_rng(1)
    base = rng.integers(0x3F80, 0x4000, 1 << 18).astype("<u2")
    steps = rng.choice([-1, 0, 1], len(base), p=[0.05, 0.9, 0.05])
    result = np.where((base & 0x7F) % 0x7F == 0, base, base + steps).astype("<u2")
    case = Case(BY_NAME["BF16"], base, result)
    bits = CONDITIONAL.encode(ExactChanges(case.base, case.positions, case.steps, case.dtype)).bits
    share = len(case.positions) / len(base)
    mask = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) * len(base)
    assert mask <= bits.positions <= 1.01 * mask
    assert len(case.positions) <= bits.values <= 1.01 * len(case.positions)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("density", [30.0, 1e4])
def test_unlike_models_take_no_more_than_their_difference(dtype: str, density: float) -> None:
    """Where most words change their exponent: the bytes of base XOR result, each plane ideal."""
    case = gaussian(density, 1 << 18, dtype)
    body = case.encode()
    assert_round_trip(case, body)
    planes = (case.base ^ case.result).view(np.uint8).reshape(-1, 2).T
    ideal = 0.0
    for plane in planes:
        counts = np.bincount(plane)
        counts = counts[counts > 0]
        ideal -= float((counts * np.log2(counts / len(plane))).sum())
    assert 8 * len(body) < 1.01 * ideal


def test_bytes_do_not_depend_on_threads() -> None:
    chunks = [gaussian(density, 1 << 15) for density in (0.01, 0.1, 1.0, 10.0)] * 4
    alone = [case.encode() for case in chunks]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(Case.encode, chunks)) == alone


def test_what_never_changes_and_what_always_does_costs_nothing() -> None:
    """Every word by the same step, or every word of the small exponents."""
    base = np.arange(1 << 15, dtype="<u2")
    everywhere = Case(BY_NAME["U16"], base, base + np.uint16(5))
    assert len(everywhere.encode()) <= 8
    small = np.where(base < 0x3C00, base ^ np.uint16(0x8000), base)
    assert len(Case(BY_NAME["U16"], base, small).encode()) > 8
    lowest = Case(BY_NAME["F16"], base, np.where(base < 0x3C00, base ^ np.uint16(1), base))
    assert len(lowest.encode()) < 1 << 15 >> 3


def simple_size(case: Case) -> int:
    """Bytes of positions, as a bit map or a list, and of all new words as they are."""
    changed, words = len(case.positions), len(case.base)
    if changed == words:
        return case.base.nbytes
    places = min(-(-words // 8), changed * (1 if words <= 256 else 2))
    return places + changed * case.dtype.word_bytes


@settings(deadline=None)
@given(cases() | cases(grouped=True) | late_cases())
@example(random_bytes())
def test_never_much_larger_than_simple_forms(case: Case) -> None:
    """A few bytes above raw words; the shortest codec never above rice."""
    few = 16 if case.groups is None else 32
    assert len(case.encode()) <= simple_size(case) + few
    positions, steps = case.positions, case.steps
    plain = RICE.encode(positions, steps, len(case.base), case.dtype.word_bits)
    codec, _, coding = encode_shortest(ExactChanges(case.base, positions, steps, case.dtype))
    assert len(coding.body) <= len(plain.body)
    assert coding.bits.total <= 8 * len(coding.body)
    if codec == CONDITIONAL.id:
        assert_round_trip(Case(case.dtype, case.base, case.result), coding.body)
    else:
        assert coding == plain


@pytest.mark.parametrize("words", [65_535, 65_536, 65_537, 66_048, 1 << 17])
@pytest.mark.parametrize("place", ["anywhere", "run", "late"])
def test_long_chunks_come_back(words: int, place: str) -> None:
    """Beyond one tile and many windows; what a window holds differs all along."""
    rng = np.random.default_rng(words)
    for dtype in (BY_NAME["BF16"], BY_NAME["F32"], BY_NAME["U8"]):
        kinds = [words_like(rng, dtype, words // 16, kind) for kind in WORDS * 2]
        base = np.concatenate([*kinds, words_like(rng, dtype, words % 16, "any")])
        chosen = chosen_words(rng, words, 0.01 if place == "anywhere" else 0.5, place)
        case = Case(dtype, base, change(rng, dtype, base, chosen, "mixed"))
        body = case.encode()
        assert_round_trip(case, body)
        assert len(body) <= simple_size(case) + 16


def test_every_population_but_edges_has_a_table() -> None:
    """The loops look it up unchecked, for populations without changes too."""
    assert len(empty_model().table_of) == EDGES
    assert len(empty_model().levels) == POPULATIONS


@pytest.mark.parametrize("quiet", [1, 511, 512, 2048, 5000])
def test_words_of_any_exponent_change_after_many_that_do_not(quiet: int) -> None:
    """Zeros that become numbers, as the rows of a grown vocabulary do."""
    rng = np.random.default_rng(quiet)
    numbers = (rng.standard_normal(quiet + 600).astype("<f4").view("<u4") >> 16).astype("<u2")
    base = numbers.copy()
    base[quiet:] = 0
    for result in (numbers, np.where(np.arange(len(base)) < quiet + 512, numbers, base)):
        case = Case(BY_NAME["BF16"], base, result)
        assert_round_trip(case, case.encode())


def test_clusters_are_left_to_rice() -> None:
    base = np.random.default_rng(1).integers(0, 256, 1 << 18, dtype=np.uint8)
    result = base.copy()
    result[:20_000:2] += 1
    case = Case(BY_NAME["U8"], base, result)
    assert encode_shortest(ExactChanges(base, case.positions, case.steps, case.dtype))[0] == RICE.id


def test_incompressible_steps_take_their_width() -> None:
    rng = np.random.default_rng(5)
    for dtype in (BY_NAME["BF16"], BY_NAME["I32"], BY_NAME["U64"]):
        base = words_like(rng, dtype, 40_000, "any")
        case = Case(dtype, base, words_like(rng, dtype, 40_000, "any"))
        body = case.encode()
        assert_round_trip(case, body)
        assert len(body) < base.nbytes * 1.001 + 30
