"""Codec 3: bodies that are damaged or random."""

from __future__ import annotations

import conditional_oracle as oracle
import numpy as np
import pytest
from conditional_cases import (
    Case,
    cases,
    example_case,
    expected,
    gaussian,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from patchc.errors import PatchFormatError
from patchc.formats.codecs import CONDITIONAL
from patchc.formats.codecs.conditional.model.levels import LEVELS, level_tables
from patchc.kernels.ulp_steps.cpu import add_steps
from patchc.sides import Side


def settle(case: Case, body: bytes, entries: int, revert: bool) -> list[tuple[int, int]] | None:
    """What a hostile body decodes to: None where it is refused, else changes in range."""
    words = case.result if revert else case.base
    target: Side = "base" if revert else "result"
    chunk = case.chunk(body, entries)
    try:
        positions, steps = CONDITIONAL.decode(chunk, words, target)
    except PatchFormatError:
        with pytest.raises(PatchFormatError):
            CONDITIONAL.change_words(chunk, words.copy(), target)
        return None
    changed, added = words.copy(), words.copy()
    CONDITIONAL.change_words(chunk, changed, target)
    add_steps(added, positions, steps, case.dtype.total_order, revert)
    np.testing.assert_array_equal(changed, added)
    assert len(positions) == len(steps) == entries
    assert (np.diff(positions.astype(np.int64)) > 0).all()
    assert positions[-1] < len(words)
    half = 1 << (case.dtype.word_bits - 1)
    assert all(step and -half <= step < half for step in steps.tolist())
    return list(zip(positions.tolist(), steps.tolist(), strict=True))


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
        CONDITIONAL.decode(case.chunk(case.encode(), entries), case.base)


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
        starts = np.searchsorted(tables.slots[level] >> 24, np.arange(len(slots)))
        assert starts.tolist() == [first for first, _ in slots]
