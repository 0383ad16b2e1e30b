"""Random chunks that codec 3 codes, and the page's decoder beside the program's."""

from __future__ import annotations

from dataclasses import dataclass

import conditional_oracle as oracle
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from patchc.dtypes import BY_NAME, DType
from patchc.formats.codecs import CONDITIONAL
from patchc.formats.codecs.protocol import ChunkBody, ExactChanges
from patchc.sides import OTHER, Side

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
        return CONDITIONAL.encode(
            ExactChanges(self.base, self.positions, self.steps, self.dtype, self.groups)
        ).body

    def words(self, side: Side) -> Words:
        return self.base if side == "base" else self.result

    def chunk(self, body: bytes, entries: int | None = None) -> ChunkBody:
        """A body with what a patch says about the chunk."""
        count = len(self.positions) if entries is None else entries
        return ChunkBody(body, count, len(self.base), self.dtype, self.groups)


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
    for source, target in OTHER.items():
        words, copy = case.words(source), case.words(source).copy()
        found = CONDITIONAL.decode(case.chunk(body), words, target)
        np.testing.assert_array_equal(found[0], positions)
        np.testing.assert_array_equal(found[1], steps)
        np.testing.assert_array_equal(words, copy)
        CONDITIONAL.change_words(case.chunk(body), copy, target)
        np.testing.assert_array_equal(copy, case.words(target))
        kept = np.empty(len(positions), np.uint32), np.empty(len(positions), words.dtype)
        again = words.copy()
        CONDITIONAL.change_words(case.chunk(body), again, target, kept)
        np.testing.assert_array_equal(again, copy)
        np.testing.assert_array_equal(kept[0], positions)
        np.testing.assert_array_equal(kept[1], words[positions])


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


def example_case() -> Case:
    """Tensor `a` of the worked example (SPEC.md, section 8)."""
    base = np.array([0x3F80, 0, 0x8001, 0x4000], "<u2")
    return Case(BY_NAME["BF16"], base, np.array([0x3F81, 0x8000, 1, 0x4000], "<u2"))


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


def expected(case: Case, body: bytes, entries: int, revert: bool) -> list[tuple[int, int]] | None:
    try:
        return by_oracle(case, body, entries, revert)
    except oracle.CorruptError:
        return None
