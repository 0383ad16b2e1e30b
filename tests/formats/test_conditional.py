"""Codec 3: round trips both ways, hostile bodies, sizes, and equality with the page's decoder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import conditional_oracle as oracle
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchc.dtypes import BY_NAME, DType
from patchc.errors import PatchFormatError
from patchc.formats.codecs import RICE
from patchc.formats.codecs.conditional.decode.decoder import (
    CONDITIONAL_ID,
    change_words,
    decode_conditional,
    encode_conditional,
)
from patchc.formats.codecs.conditional.model.chunk_model import empty_model
from patchc.formats.codecs.conditional.model.classes import EDGES, POPULATIONS
from patchc.formats.codecs.conditional.model.levels import LEVELS, level_tables
from patchc.formats.codecs.shortest import encode_shortest
from patchc.kernels.ulp_steps.cpu import add_steps

SPEC = Path(__file__).parents[2] / "formats" / "SPEC.md"
FLOATS = sorted(oracle.EXPONENTS)
DTYPES = [BY_NAME[name] for name in [*FLOATS, "U8", "I16", "I32", "U64", "F4", "C64"]]
Words = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Case:
    """A chunk before and after."""

    dtype: DType
    base: Words
    result: Words
    groups: NDArray[np.uint8] | None = None

    @property
    def positions(self) -> NDArray[np.uint32]:
        return np.flatnonzero(self.base != self.result).astype(np.uint32)

    @property
    def steps(self) -> NDArray[np.int64]:
        """By plain Python integers (SPEC.md, section 3.3)."""
        width = self.dtype.word_bits
        half = 1 << (width - 1)

        def order(word: int) -> int:
            return word ^ (half - 1) if self.dtype.total_order and word & half else word

        at = self.positions
        pairs = zip(self.base[at].tolist(), self.result[at].tolist(), strict=True)
        steps = [(order(r) - order(b) + half) % (2 * half) - half for b, r in pairs]
        return np.array(steps, np.int64)

    def encode(self) -> bytes:
        return encode_conditional(
            self.base, self.positions, self.steps, self.dtype, self.groups
        ).body


def words_like(rng: np.random.Generator, dtype: DType, count: int, kind: str) -> Words:
    """Words of a chunk, of a kind; "pieces" are runs of several kinds."""
    width = dtype.word_bits
    mantissa, exponent = oracle.EXPONENTS.get(dtype.name, (width - 2, 2))
    one, top = dtype.word.type(1), 1 << (width - 1)
    bits = rng.integers(0, 2**width - 1, count, dtype.word, endpoint=True)
    if kind == "weights":
        middle = (1 << (exponent - 1)) - 1
        exponents = np.maximum(0, middle - rng.geometric(0.5, count)).astype(dtype.word)
        return exponents << dtype.word.type(mantissa) | bits & dtype.word.type(
            top | top - 1 >> exponent
        )
    if kind == "edges":
        exponents = rng.integers(0, 1 << exponent, count).astype(dtype.word)
        return (exponents << dtype.word.type(mantissa)) + rng.integers(-2, 3, count).astype(
            dtype.word
        )
    if kind == "zeros":
        return np.where(rng.random(count) < 0.9, 0, bits).astype(dtype.word)
    if kind == "special":  # zeros, infinities, NaNs and the least and greatest numbers
        ends = [
            0,
            1,
            top - 1,
            (1 << mantissa) - 1,
            1 << mantissa,
            ((1 << exponent) - 1) << mantissa,
        ]
        numbers = np.array([*ends, *(top | end for end in ends)], dtype.word)
        return numbers[rng.integers(0, len(numbers), count)]
    if kind == "still":  # great numbers, and a small one now and then
        return np.where(
            rng.random(count) < 0.002, bits & one, bits | dtype.word.type(top >> 1)
        ).astype(dtype.word)
    if kind == "same":
        return np.full(count, bits[0], dtype.word)
    if kind == "pieces":
        ends = np.sort(rng.integers(0, count + 1, 4))
        kinds = rng.choice(["weights", "edges", "zeros", "special", "still", "any"], 5)
        pieces = np.split(np.arange(count), ends)
        return np.concatenate(
            [words_like(rng, dtype, len(p), k) for p, k in zip(pieces, kinds, strict=True)]
        )
    return bits


def chosen_words(
    rng: np.random.Generator, count: int, density: float, place: str
) -> NDArray[np.bool_]:
    """Which words change, at least one: anywhere, in one run, or only among the last few."""
    chosen = rng.random(count) < density
    if place == "run":
        first = int(rng.integers(count))
        chosen[:first] = chosen[first + int(rng.integers(1, 600)) :] = False
    elif place == "late":
        chosen[: -int(rng.integers(1, 70))] = False
    if not chosen.any():
        chosen[rng.integers(count) if place == "anywhere" else -1] = True
    return chosen


def change(
    rng: np.random.Generator, dtype: DType, base: Words, chosen: NDArray[np.bool_], kind: str
) -> Words:
    """The base after changes of a kind; "mixed" are of several."""
    old, count = base[chosen], int(chosen.sum())
    mantissa, _ = oracle.EXPONENTS.get(dtype.name, (dtype.word_bits - 2, 2))
    low = dtype.word.type((1 << mantissa) - 1)
    if kind == "mixed":
        kinds = rng.choice(["one", "small", "spread", "sign", "zero", "number", "edge", "any"], 3)
        result = base.copy()
        for each in kinds:
            own = chosen & (rng.random(len(base)) < 0.5)
            result = change(rng, dtype, result, own, each) if own.any() else result
        chosen = chosen & (result == base)
        result[chosen] ^= dtype.word.type(1)
        return result
    if kind == "one":
        new = old + dtype.word.type(1)
    elif kind == "small":
        new = old + rng.choice([-3, -2, -1, 1, 2, 3], count).astype(dtype.word)
    elif kind == "spread":
        sizes = rng.geometric(rng.choice([0.02, 1e-4]), count) * rng.choice([-1, 1], count)
        new = old + sizes.astype(dtype.word)
    elif kind == "sign":
        new = old ^ dtype.word.type(1 << (dtype.word_bits - 1))
    elif kind == "edge":
        new = np.where(rng.random(count) < 0.5, old | low, old & ~low)
    else:
        new = {
            "zero": lambda: np.zeros_like(old),
            "number": lambda: words_like(rng, dtype, count, "weights"),
            "any": lambda: words_like(rng, dtype, count, "any"),
        }[kind]()
    result = base.copy()
    result[chosen] = np.where(new == old, old ^ dtype.word.type(1), new)
    return result


WORDS = ["weights", "edges", "zeros", "special", "still", "same", "pieces", "any"]
CHANGES = ["one", "small", "spread", "sign", "zero", "number", "edge", "mixed", "any"]


@st.composite
def cases(draw: st.DrawFn, grouped: bool = False) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(DTYPES))
    count = draw(st.sampled_from([1, 2, 3, 63, 64, 65, 100, 512, 513, 700, 1100, 1600]))
    base = words_like(rng, dtype, count, draw(st.sampled_from(WORDS)))
    density = draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.97, 1.0]))
    chosen = chosen_words(rng, count, density, draw(st.sampled_from(["anywhere", "run", "late"])))
    result = change(rng, dtype, base, chosen, draw(st.sampled_from(CHANGES)))
    if not grouped:
        return Case(dtype, base, result)
    groups = rng.choice(4, count, p=[0.5, 0.2, 0.2, 0.1]).astype(np.uint8)
    outside = (groups == 0) & (rng.random(count) < draw(st.sampled_from([0.5, 1.0])))
    outside[np.flatnonzero(base != result)[0]] = False
    return Case(dtype, base, np.where(outside, base, result), groups)


def assert_round_trip(case: Case, body: bytes) -> None:
    positions, steps = case.positions, case.steps
    for revert, words in ((False, case.base), (True, case.result)):
        held = words.copy()
        found = decode_conditional(body, words, len(positions), case.dtype, revert, case.groups)
        np.testing.assert_array_equal(found[0], positions)
        np.testing.assert_array_equal(found[1], steps)
        np.testing.assert_array_equal(words, held)
        change_words(body, held, len(positions), case.dtype, revert, case.groups)
        np.testing.assert_array_equal(held, case.base if revert else case.result)


def by_oracle(case: Case, body: bytes, entries: int, revert: bool) -> list[tuple[int, int]]:
    words = (case.result if revert else case.base).tolist()
    members = None if case.groups is None else case.groups.tolist()
    width = case.dtype.word_bits
    return oracle.conditional(body, words, entries, case.dtype.name, width, revert, members)


@st.composite
def late_cases(draw: st.DrawFn) -> Case:
    """Whole windows of words of one kind that stay, and then others that change."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(DTYPES))
    kind = draw(st.sampled_from(["still", "same"]))
    still = words_like(rng, dtype, 512 * draw(st.integers(1, 3)), kind)
    count = draw(st.sampled_from([1, 65, 512, 700]))
    base = words_like(rng, dtype, count, draw(st.sampled_from(["zeros", "special", "weights"])))
    chosen = chosen_words(rng, count, draw(st.sampled_from([0.0, 0.1, 1.0])), "anywhere")
    result = change(rng, dtype, base, chosen, draw(st.sampled_from(["number", "mixed", "any"])))
    return Case(dtype, np.concatenate([still, base]), np.concatenate([still, result]))


def random_bytes() -> Case:
    """A hundred bytes, all replaced: no table of their steps pays."""
    base, result = np.random.default_rng(1).permutation(200).astype(np.uint8).reshape(2, 100)
    return Case(BY_NAME["U8"], base, result)


def example_case() -> Case:
    """Tensor `a` of the worked example (SPEC.md, section 8)."""
    base = np.array([0x3F80, 0, 0x8001, 0x4000], "<u2")
    return Case(BY_NAME["BF16"], base, np.array([0x3F81, 0x8000, 1, 0x4000], "<u2"))


@settings(deadline=None)
@given(cases() | cases(grouped=True) | late_cases())
@example(example_case())
def test_round_trip_and_the_page_s_decoder(case: Case) -> None:
    body = case.encode()
    assert_round_trip(case, body)
    expected = list(zip(case.positions.tolist(), case.steps.tolist(), strict=True))
    assert by_oracle(case, body, len(case.positions), revert=False) == expected
    assert by_oracle(case, body, len(case.positions), revert=True) == expected


def test_the_worked_example() -> None:
    body = example_case().encode()
    assert body == bytes.fromhex("FA 8B 44 0C 34 09 01")
    assert f"`{body.hex(' ').upper()}`" in SPEC.read_text()


def gaussian(density: float, words: int, dtype: str = "BF16") -> Case:
    """Gaussian weights, and an update of one size whatever the weight."""
    rng = np.random.default_rng(8)
    weights = rng.normal(0, 0.02, words).astype(np.float32)
    size = np.quantile(np.abs(weights), 0.5) * density / 256
    moved = (weights + rng.normal(0, 2 * size, words)).astype(np.float32)
    if dtype == "F32":
        moved = np.where(rng.random(words) < density, moved, weights).astype(np.float32)
        return Case(BY_NAME[dtype], weights.view(np.uint32), moved.view(np.uint32))
    if dtype == "F16":
        pair = weights.astype(np.float16), moved.astype(np.float16)
        return Case(BY_NAME[dtype], pair[0].view(np.uint16), pair[1].view(np.uint16))
    pair = weights.view(np.uint32) >> 16, moved.view(np.uint32) >> 16
    return Case(BY_NAME[dtype], pair[0].astype(np.uint16), pair[1].astype(np.uint16))


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
    bits = encode_conditional(case.base, case.positions, case.steps, case.dtype).bits
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
    codec, _, coding = encode_shortest(case.base, positions, steps, case.dtype)
    assert len(coding.body) <= len(plain.body)
    assert coding.bits.total <= 8 * len(coding.body)
    if codec == CONDITIONAL_ID:
        assert_round_trip(Case(case.dtype, case.base, case.result), coding.body)
    else:
        assert coding == plain


@pytest.mark.parametrize("words", [65_535, 65_536, 65_537, 66_048, 1 << 17])
@pytest.mark.parametrize("place", ["anywhere", "run", "late"])
def test_long_chunks(words: int, place: str) -> None:
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
    assert encode_shortest(base, case.positions, case.steps, case.dtype)[0] == RICE.id


def test_incompressible_steps_take_their_width() -> None:
    rng = np.random.default_rng(5)
    for dtype in (BY_NAME["BF16"], BY_NAME["I32"], BY_NAME["U64"]):
        base = words_like(rng, dtype, 40_000, "any")
        case = Case(dtype, base, words_like(rng, dtype, 40_000, "any"))
        body = case.encode()
        assert_round_trip(case, body)
        assert len(body) < base.nbytes * 1.001 + 30


def settle(case: Case, body: bytes, entries: int, revert: bool) -> list[tuple[int, int]] | None:
    """What a hostile body decodes to: None where it is refused, else changes in range."""
    words = case.result if revert else case.base
    try:
        positions, steps = decode_conditional(body, words, entries, case.dtype, revert, case.groups)
    except PatchFormatError:
        with pytest.raises(PatchFormatError):
            change_words(body, words.copy(), entries, case.dtype, revert, case.groups)
        return None
    changed, added = words.copy(), words.copy()
    change_words(body, changed, entries, case.dtype, revert, case.groups)
    add_steps(added, positions, steps, case.dtype.total_order, revert)
    np.testing.assert_array_equal(changed, added)
    assert len(positions) == len(steps) == entries
    assert (np.diff(positions.astype(np.int64)) > 0).all()
    assert positions[-1] < len(words)
    half = 1 << (case.dtype.word_bits - 1)
    assert all(step and -half <= step < half for step in steps.tolist())
    return list(zip(positions.tolist(), steps.tolist(), strict=True))


def expected(case: Case, body: bytes, entries: int, revert: bool) -> list[tuple[int, int]] | None:
    try:
        return by_oracle(case, body, entries, revert)
    except oracle.CorruptError:
        return None


@settings(deadline=None, max_examples=200)
@given(cases() | cases(grouped=True), st.data(), st.booleans())
def test_damaged_bodies_decode_as_the_page_says_or_are_refused(
    case: Case, data: st.DataObject, revert: bool
) -> None:
    body = bytearray(case.encode())
    how = data.draw(st.sampled_from(["flip", "cut", "extend", "replace"]))
    at = data.draw(st.integers(0, len(body) - 1))
    if how == "flip":
        body[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del body[at:]
    elif how == "extend":
        body += data.draw(st.binary(min_size=1, max_size=9))
    else:
        body[at:] = data.draw(st.binary(max_size=12))
    entries = data.draw(st.integers(1, len(case.base)) | st.just(len(case.positions)))
    wanted = expected(case, bytes(body), entries, revert)
    assert settle(case, bytes(body), entries, revert) == wanted


@settings(deadline=None, max_examples=300)
@given(cases() | cases(grouped=True), st.binary(max_size=60), st.integers(1, 700), st.booleans())
def test_random_bodies_decode_as_the_page_says_or_are_refused(
    case: Case, body: bytes, entries: int, revert: bool
) -> None:
    entries = min(entries, len(case.base))
    assert settle(case, body, entries, revert) == expected(case, body, entries, revert)


@pytest.mark.parametrize("entries", [0, 2, 4, 5, 2**32])
def test_the_record_and_the_body_must_agree(entries: int) -> None:
    case = example_case()
    with pytest.raises(PatchFormatError):
        decode_conditional(case.encode(), case.base, entries, case.dtype, False)


def test_other_words_are_refused_or_decode_within_range() -> None:
    case = gaussian(1.0, 1 << 12)
    body, rng = case.encode(), np.random.default_rng(2)
    for _ in range(50):
        other = Case(case.dtype, rng.permutation(case.base), case.result)
        assert settle(other, body, len(case.positions), revert=False) is None


def test_levels_are_as_the_page_says() -> None:
    tables = level_tables()
    for level in range(LEVELS - 1):
        k, slots = oracle.level_table(level)
        assert tables.low_bits[level] == k
        assert tables.tokens[level] == len(slots) - 1
        starts = tables.starts[level, : len(slots) + 1].tolist()
        assert starts == [first for first, _ in slots] + [4096]
