"""What lets the encoder of codec 3 do less: each shortcut against the long way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchc.dtypes import BY_NAME
from patchc.formats.codecs import CONDITIONAL, RICE
from patchc.formats.codecs.conditional.encode import encoder as encoder_module
from patchc.formats.codecs.conditional.encode.encoder import ChunkEncoder
from patchc.formats.codecs.conditional.model.levels import ALWAYS, best_level, level_costs
from patchc.formats.codecs.conditional.model.rans import SCALE, push, pushes_of
from patchc.formats.codecs.protocol import ChunkBody, ExactChanges
from patchc.formats.codecs.rice import least_bits
from patchc.kernels.ulp_steps.cpu import changed_steps

BF16 = BY_NAME["BF16"]


def results_of(monkeypatch: pytest.MonkeyPatch, name: str) -> list:
    """From now on, all that a function of the encoder returns."""
    results, function = [], getattr(encoder_module, name)

    def spy(*arguments):
        results.append(function(*arguments))
        return results[-1]

    monkeypatch.setattr(encoder_module, name, spy)
    return results


def test_a_push_divides_exactly() -> None:
    """Every frequency, at states around multiples of it, up to the greatest without a word out."""
    out = np.zeros(4, np.uint32)
    rng = np.random.default_rng(0)
    for freq in range(1, SCALE):
        table = pushes_of(np.array([[0, SCALE - freq, SCALE]]))
        limit = freq << 52
        multiples = [limit - freq, *(freq * int(q) for q in rng.integers(1, 1 << 52, 3))]
        for x in {1, freq, limit - 1, limit // 2, *multiples, *(m - 1 for m in multiples)}:
            after, words = push(np.uint64(x), 0, out, table, 0, 1)
            assert (words, int(after)) == (0, (x // freq << 12) + x % freq + SCALE - freq)
        if limit < 1 << 64:
            after, words = push(np.uint64(limit + 5), 0, out, table, 0, 1)
            x = limit + 5 >> 32
            assert (words, int(out[0])) == (1, 5)
            assert int(after) == (x // freq << 12) + x % freq + SCALE - freq


@given(st.integers(0, 1 << 22), st.integers(0, 1 << 40))
def test_the_best_level_is_the_best_of_all(hits: int, misses: int) -> None:
    costs = level_costs()
    level, bits = best_level(hits, hits + misses, costs)
    if misses == 0:
        assert (level, bits) == (ALWAYS, 0.0)
        return
    all_bits = hits * costs.hits[:ALWAYS] + misses * costs.misses[:ALWAYS]
    assert level == np.argmin(all_bits)
    assert bits == all_bits[level]


@given(st.data(), st.sampled_from([8, 16, 32, 64]))
def test_no_rice_body_is_below_its_bound(data: st.DataObject, width: int) -> None:
    high = (1 << data.draw(st.integers(1, width - 1))) - 1
    step = st.integers(-high - 1, high).filter(bool)
    gap = st.integers(1, data.draw(st.sampled_from([1, 3, 400, 60_000])))
    changes = data.draw(st.lists(st.tuples(gap, step), min_size=1, max_size=60))
    positions = (np.cumsum([one for one, _ in changes]) - 1).astype(np.uint32)
    steps = np.array([step for _, step in changes], np.int64)
    body = RICE.encode(positions, steps, int(positions[-1]) + 1, width).body
    assert least_bits(positions, steps, width) <= 8 * len(body)


def weights(count: int, share: float, reach: int, below: float = math.inf) -> tuple:
    """bf16 weights, changes of those below a magnitude by up to ``reach`` steps, and groups."""
    rng = np.random.default_rng([count, reach])
    values = rng.standard_normal(count).astype(np.float32)
    base = (values.view(np.uint32) >> 16).astype(np.uint16)
    groups = (rng.random(count) < 0.4) + 2 * (rng.random(count) < 0.4).astype(np.uint8)
    chosen = (rng.random(count) < share) & (np.abs(values) < below) & (groups > 0)
    moved = base + rng.integers(-reach, reach + 1, count).astype(np.uint16)
    result = np.where(chosen, moved, base)
    positions, steps = np.empty(count, np.uint32), np.empty(count, np.int64)
    found = changed_steps(base, result, True, positions, steps)
    return base, result, positions[:found], steps[:found], groups.astype(np.uint8)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("count", [1 << 16, (1 << 16) + 3, (1 << 16) + 70])
def test_words_left_out_change_nothing(
    monkeypatch: pytest.MonkeyPatch, count: int, grouped: bool
) -> None:
    """Small words change, and the last of the chunk, which fills no block."""
    base, result, positions, steps, groups = weights(count - 1, 0.5, 3, 0.05)
    base, result = np.append(base, np.uint16(0x3A00)), np.append(result, np.uint16(0x3A01))
    positions, steps = np.append(positions, np.uint32(count - 1)), np.append(steps, 1)
    groups = np.append(groups, np.uint8(1)) if grouped else None
    sifted = results_of(monkeypatch, "sift")
    body = CONDITIONAL.encode(ExactChanges(base, positions, steps, BF16, groups)).body
    assert len(sifted[0].words) < count / 8
    assert np.array_equal(sifted[0].words[sifted[0].places], base[positions])
    monkeypatch.setattr(
        encoder_module,
        "sift",
        lambda *_: sifted[0]._replace(
            words=base, groups=np.zeros(1, np.uint8) if groups is None else groups, places=positions
        ),
    )
    assert CONDITIONAL.encode(ExactChanges(base, positions, steps, BF16, groups)).body == body
    chunk = ChunkBody(body, len(positions), len(base), BF16, groups)
    for words, target in ((base, "result"), (result, "base")):
        found = CONDITIONAL.decode(chunk, words, target)
        assert np.array_equal(found[0], positions)
        assert np.array_equal(found[1], steps)


@pytest.mark.parametrize("reach", [1, 4, 2000])
def test_one_encoder_codes_with_groups_and_without(reach: int) -> None:
    base, _, positions, steps, groups = weights(40_000, 0.02, reach)
    both = ChunkEncoder(ExactChanges(base, positions, steps, BF16, groups))
    assert both.encode(True) == CONDITIONAL.encode(
        ExactChanges(base, positions, steps, BF16, groups)
    )
    assert both.encode(False) == CONDITIONAL.encode(ExactChanges(base, positions, steps, BF16))


@pytest.mark.parametrize("share", [0.001, 0.05, 1.0])
@pytest.mark.parametrize("reach", [1, 4, 2000])
def test_a_body_is_as_long_as_expected(
    monkeypatch: pytest.MonkeyPatch, share: float, reach: int
) -> None:
    ways = results_of(monkeypatch, "_prepare")
    base, _, positions, steps, groups = weights(60_000, share, reach)
    CONDITIONAL.encode(ExactChanges(base, positions, steps, BF16, groups))
    CONDITIONAL.encode(ExactChanges(base, positions, steps, BF16))
    assert len(ways) >= 2
    for way in ways:
        bits, doubt = way.expected
        assert abs(bits - 8 * len(way.coding.body)) < 32 < doubt < 96


@pytest.mark.parametrize("dtype", ["F32", "F64", "BF16"])
def test_long_runs_of_raw_bits_leave_doubt(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """They move words out of the state when little else is on it."""
    ways = results_of(monkeypatch, "_prepare")
    kind, rng = BY_NAME[dtype], np.random.default_rng(3)
    base, result = rng.normal(0, 1, (2, 60_000)).astype("f4" if dtype != "F64" else "f8")
    base, result = (half.view(f"u{half.itemsize}") for half in (base, result))
    if dtype == "BF16":
        base, result = ((half >> 16).astype(np.uint16) for half in (base, result))
    positions, steps = np.empty(60_000, np.uint32), np.empty(60_000, np.int64)
    found = changed_steps(base, result, True, positions, steps)
    CONDITIONAL.encode(ExactChanges(base, positions[:found], steps[:found], kind))
    assert ways
    for way in ways:
        bits, doubt = way.expected
        assert abs(bits - 8 * len(way.coding.body)) < doubt


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
def test_what_is_not_made_would_not_be_taken(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Random words in place of others of all exponents: two bodies of about one length."""
    kind, rng = BY_NAME[dtype], np.random.default_rng(1)
    count = 30_000
    base, other = rng.integers(0, 2**kind.word_bits - 1, (2, count), kind.word, endpoint=True)
    for share in (0.1, 0.3, 0.9):
        result = np.where(rng.random(count) < share, other, base)
        positions, steps = np.empty(count, np.uint32), np.empty(count, np.int64)
        found = changed_steps(base, result, True, positions, steps)
        changes = base, positions[:found], steps[:found], kind
        short = CONDITIONAL.encode(ExactChanges(*changes))
        with monkeypatch.context() as patched:
            patched.setattr(encoder_module._Way, "least_bits", -math.inf)
            assert CONDITIONAL.encode(ExactChanges(*changes)) == short
