"""Exact top-k of tensors against a sort: ties, retention, tiles, rows, bad scores."""

from __future__ import annotations

import numpy as np
import pytest
import selection_oracle as oracle
import torch
from numpy.typing import NDArray

from patchc.errors import MismatchError, NumericError, UnsupportedInputError
from patchc.kernels.philox import KEEP_ALL, Retention, retention_threshold
from patchc.kernels.topk import TopSearch, mark_top, reference, top_mask

SEED = 2**64 - 77
EVERYTHING = Retention(0, 0, KEEP_ALL)
KINDS = ("spread", "four levels", "all equal", "all zero", "subnormal", "any bits")


def _scores(kind: str, count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(count)
    if kind == "spread":
        values = rng.exponential(size=count)
    elif kind == "four levels":
        values = rng.integers(0, 4, count) / 3
    elif kind == "all equal":
        values = np.full(count, 0.25)
    elif kind == "all zero":
        values = np.where(rng.random(count) < 0.5, -0.0, 0.0)
    elif kind == "subnormal":
        values = rng.integers(0, 20, count) * 1.4e-45
    else:
        values = rng.integers(0, 0x7F800000, count, dtype=np.uint32).view(np.float32)
    return values.astype(np.float32)


def _retention(name: str, retain: float) -> Retention:
    return Retention(SEED, oracle.stream_of("se", name), retention_threshold(retain))


def _kept(name: str, retain: float, count: int) -> NDArray[np.bool_]:
    return oracle.retained("se", name, SEED, retain, 0, count)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3, 33, 1024, 2500])
def test_top_sets_equal_a_sort(kind: str, count: int, device: str) -> None:
    scores = _scores(kind, count)
    there = torch.from_numpy(scores).to(device)
    for retain, wanted in ((0.6, count // 3), (1.0, count // 2 + 1), (0.3, count)):
        found = top_mask(there, wanted, _retention("t", retain)).cpu().numpy()
        kept = _kept("t", retain, count)
        assert np.array_equal(found, oracle.top_set(scores, kept, wanted))
        assert np.array_equal(found, reference.top_mask(scores, kept, wanted))


@pytest.mark.parametrize("kind", ["spread", "four levels", "all equal"])
@pytest.mark.parametrize("tile", [512, 1100, 2048])
def test_one_cut_over_streamed_tensors(kind: str, tile: int, device: str) -> None:
    """Ties go to the earlier tensor; the retention draws of each are its own."""
    sizes = {"a": 1300, "b": 5, "c": 2100}
    scores = {name: _scores(kind, size) for name, size in sizes.items()}
    kept = np.concatenate([_kept(name, 0.5, size) for name, size in sizes.items()])
    expected = oracle.top_set(np.concatenate(list(scores.values())), kept, 900)
    tiles = [
        (torch.from_numpy(scores[name][at : at + tile]).to(device), at, _retention(name, 0.5))
        for name, size in sizes.items()
        for at in range(0, size, tile)
    ]
    search = TopSearch(900, device)
    for one in reversed(tiles):
        search.count_high(*one)
    search.narrow()
    for one in tiles:
        search.count_low(*one)
    search.check("scores")
    cut, taken = search.cut(), torch.zeros(1, dtype=torch.int64, device=device)
    found = []
    for part, first, retention in tiles:
        mask = torch.ones(part.shape, dtype=torch.bool, device=device)
        mark_top(part, first, retention, cut, taken, mask)
        found.append(mask.cpu().numpy())
    assert np.array_equal(np.concatenate(found), expected)
    assert int(taken) == int(cut[2])


@pytest.mark.parametrize("kind", ["spread", "four levels", "all zero", "any bits"])
@pytest.mark.parametrize("shape", [(3, 1), (3, 3), (2, 33), (2, 1027)])
def test_each_row_has_a_top_set_of_its_own(kind: str, shape: tuple[int, int], device: str) -> None:
    rows, length = shape
    scores = _scores(kind, rows * length)
    for retain, wanted in ((0.6, max(1, length // 3)), (1.0, length), (0.5, 0)):
        kept = _kept("t", retain, rows * length).reshape(shape)
        there = torch.from_numpy(scores.reshape(shape)).to(device)
        found = top_mask(there, wanted, _retention("t", retain), row_length=length).cpu().numpy()
        for row in range(rows):
            line = scores.reshape(shape)[row]
            assert np.array_equal(found[row], oracle.top_set(line, kept[row], wanted))


@pytest.mark.parametrize("row_length", [None, 250])
def test_a_later_part_of_a_tensor_draws_by_its_own_indices(
    row_length: int | None, device: str
) -> None:
    scores, retention = _scores("any bits", 3000), _retention("t", 0.4)
    whole = torch.from_numpy(scores).to(device)
    found = top_mask(whole[1000:].clone(), 60, retention, row_length, first=1000).cpu().numpy()
    kept = _kept("t", 0.4, 3000)[1000:]
    lines = (scores[1000:].reshape(-1, row_length or 2000), kept.reshape(-1, row_length or 2000))
    expected = [oracle.top_set(line, mask, 60) for line, mask in zip(*lines, strict=True)]
    assert np.array_equal(found, np.concatenate(expected))
    bad = whole[1000:].clone()
    bad[7] = -1
    with pytest.raises(NumericError, match="flat index 1007"):
        top_mask(bad, 60, retention, row_length, first=1000)


def test_ties_are_broken_as_by_hand(device: str) -> None:
    scores = torch.tensor([1, 2, 1, 3, 1, 2, 0, 1], dtype=torch.float32, device=device)
    found = top_mask(scores, 5, EVERYTHING)
    assert found.tolist() == [True, True, True, True, False, True, False, False]
    rows = top_mask(scores.view(2, 4), 2, EVERYTHING, row_length=4)
    assert rows.tolist() == [[False, True, False, True], [True, True, False, False]]


@pytest.mark.parametrize("value", [-1.0, -1e-45, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("row_length", [None, 1250])
def test_bad_scores_are_named(value: float, row_length: int | None, device: str) -> None:
    scores = torch.ones(2500)
    scores[[1733, 2400]] = value
    with pytest.raises(NumericError, match="flat index 1733 is negative or not finite"):
        top_mask(scores.to(device), 5, _retention("t", 0.1), row_length)


def test_rows_that_do_not_fill_the_tensor_are_refused() -> None:
    with pytest.raises(MismatchError, match="10 scores do not fill rows of 4"):
        top_mask(torch.ones(10), 1, EVERYTHING, row_length=4)


def test_scores_of_another_dtype_are_refused() -> None:
    with pytest.raises(UnsupportedInputError, match=r"scores of torch\.float16"):
        top_mask(torch.ones(4, dtype=torch.float16), 1, EVERYTHING)


def test_flat_indices_beyond_32_bits(device: str) -> None:
    """The draws of a tile far into a tensor are those of its flat indices."""
    first = 2**33 + 4
    scores = torch.zeros(300, device=device)
    retention = _retention("t", 0.5)
    search = TopSearch(10**9, device)
    search.count_high(scores, first, retention)
    search.narrow()
    search.count_low(scores, first, retention)
    mask = torch.ones(300, dtype=torch.bool, device=device)
    taken = torch.zeros(1, dtype=torch.int64, device=device)
    mark_top(scores, first, retention, search.cut(), taken, mask)
    expected = oracle.retained("se", "t", SEED, 0.5, first, 300)
    assert np.array_equal(mask.cpu().numpy(), expected)
