"""DARE, magnitude and TIES on tensors against the methods in plain NumPy, tile by tile."""

from __future__ import annotations

import merge_oracle as oracle
import ml_dtypes
import numpy as np
import pytest
import torch

from patchc.errors import MismatchError, UnsupportedInputError
from patchc.kernels.philox import KEEP_ALL, retention_stream, retention_threshold
from patchc.kernels.top_search import TopSearch, cut_of, mark_top
from patchc.kernels.topk import Retention, TopThreshold
from patchc.kernels.votes import Vectors, count_signs, magnitudes, merge_vectors

BF16 = np.dtype(ml_dtypes.bfloat16)


def _masks(
    base: torch.Tensor, tuned: torch.Tensor, merge: oracle.Merge, device: str
) -> torch.Tensor:
    masks = torch.ones(tuned.shape, dtype=torch.bool, device=device)
    for number, model in enumerate(tuned):
        scores = magnitudes(base, model)
        retention = Retention(0, 0, KEEP_ALL)
        if merge.method == "dare":
            stream = retention_stream(f"model-{number}", "t")
            retention = Retention(merge.seed, stream, retention_threshold(merge.density))
            cut = cut_of(TopThreshold(0, 0, 0), device)
        else:
            search = TopSearch(int(merge.density * base.numel()), device)
            search.count_high(scores, 0, retention)
            search.narrow()
            search.count_low(scores, 0, retention)
            cut = search.cut()
        taken = torch.zeros(1, dtype=torch.int64, device=device)
        mark_top(scores, 0, retention, cut, taken, masks[number])
    return masks


@pytest.mark.parametrize("count", [1, 3, 33, 1500])
@pytest.mark.parametrize("method", ["dare", "magnitude", "ties"])
@pytest.mark.parametrize("tuned_type", [torch.float32, torch.bfloat16], ids=str)
def test_equals_the_method(method: str, count: int, tuned_type: torch.dtype, device: str) -> None:
    torch.manual_seed(count)
    base = torch.randn(count).bfloat16()
    # Steps of 1/8, so that many deltas are equal, zero, or cancel.
    moved = (base.float() + torch.randint(-3, 4, (3, count)) / 8).to(tuned_type)
    merge = oracle.Merge(method, 0.4, (1.0, 0.5, 0.75), lam=1.3, seed=2**63 + 1)
    values = [
        {"t": m.numpy() if tuned_type == torch.float32 else m.view(torch.int16).numpy().view(BF16)}
        for m in moved
    ]
    words = base.view(torch.int16).numpy().view(BF16)
    expected = oracle.merge_models({"t": words}, values, merge, ["t"])["t"]
    there, tuned = base.to(device), moved.to(device)
    masks = _masks(there, tuned, merge, device)
    vectors = Vectors(tuned, masks, merge.weights)
    elects = method == "ties"
    majority = count_signs(there, vectors) if elects else 0
    found = merge_vectors(there, vectors, float(np.float32(merge.lam)), elects, majority)
    assert (found.input_fault, found.fault) == (None, None)
    result = found.result.cpu().view(torch.int16).numpy()
    assert np.array_equal(result, expected.view(np.int16))
    deltas = (tuned.float() - there.float()).cpu()
    assert found.kept == tuple(((deltas != 0) & masks.cpu()).sum(1).tolist())


def _vectors(tuned: list[list[float]], masks: list[list[int]], device: str) -> Vectors:
    return Vectors(
        torch.tensor(tuned, device=device),
        torch.tensor(masks, dtype=torch.bool, device=device),
        [1.0] * len(tuned),
    )


def test_an_election_by_hand(device: str) -> None:
    base = torch.tensor([0.0, 1.0, -0.0, 4.0, 8.0], device=device)
    tuned = [[1.0, 0.0, 0.0, 5.0, 9.0], [3.0, 4.0, 0.0, 3.0, 6.0]]
    vectors = _vectors(tuned, [[1] * 5, [1, 1, 1, 1, 0]], device)
    assert count_signs(base, vectors) == 3
    merged = merge_vectors(base, vectors, 1.0, elects=True, majority=-1).result
    assert merged.tolist() == [2.0, 4.0, -0.0, 3.0, 9.0]
    assert merged.view(torch.int32)[2] == -(2**31)
    assert merge_vectors(base, vectors, 1.0, elects=True, majority=1).result[3] == 5.0
    assert merge_vectors(base, vectors, 1.0, elects=True).result[3] == 4.0
    summed = merge_vectors(base, vectors, 2.0)
    assert summed.result.tolist() == [8.0, 5.0, -0.0, 4.0, 10.0]
    assert summed.kept == (4, 3)


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("elects", [False, True])
def test_faults(elects: bool, device: str) -> None:
    base = torch.zeros(6, dtype=torch.float16, device=device)
    tuned = [[1.0, 6e4, 1.0, 1.0, torch.inf, 1.0], [1.0, 6e4, 1.0, torch.nan, 1.0, 1.0]]
    found = merge_vectors(base, _vectors(tuned, [[1] * 6] * 2, device), 4.0, elects)
    assert (found.input_fault, found.fault) == (3, None)
    without = _vectors([row[:3] for row in tuned], [[1] * 3] * 2, device)
    found = merge_vectors(base[:3], without, 4.0, elects)
    assert (found.input_fault, found.fault) == (None, 1)
    quiet = [[1.0, 6e4, 1.0], [2.0, 1.0, 1.0]]
    found = merge_vectors(base[:3], _vectors(quiet, [[1, 0, 1]] * 2, device), 4.0, elects)
    assert (found.input_fault, found.fault) == (None, None)


def test_other_numbers_are_refused() -> None:
    vectors = _vectors([[1.0, 2.0]], [[1, 1]], "cpu")
    with pytest.raises(MismatchError, match="tuned has 2 entries where 3"):
        merge_vectors(torch.zeros(3), vectors, 1.0)
    with pytest.raises(UnsupportedInputError, match="0 models"):
        count_signs(torch.zeros(3), Vectors(vectors.tuned, vectors.masks, []))
