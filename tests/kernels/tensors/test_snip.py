"""SNIP accumulation against its oracle: every pair of dtypes, no contraction, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchc.errors import MismatchError, UnsupportedInputError
from patchc.kernels.snip import add_scores, reference

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("weight_type", [None, *DTYPES], ids=str)
@pytest.mark.parametrize("gradient_type", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 3, 33, 1025])
def test_scores_equal_the_oracle(
    gradient_type: torch.dtype, weight_type: torch.dtype | None, count: int, device: str
) -> None:
    torch.manual_seed(count)
    gradients = torch.randn(count).to(gradient_type)
    weights = None if weight_type is None else torch.randn(count).to(weight_type)
    widened = None if weights is None else weights.float().numpy()
    # Entries past the end are poisoned: a kernel that touches one shows it.
    buffer = torch.cat([torch.rand(count), torch.full((7,), -777.25)])
    expected = buffer.numpy().copy()
    for _ in range(3):
        expected[:count] = reference.add_scores(
            expected[:count], gradients.float().numpy(), widened
        )
    held = buffer.to(device)
    for _ in range(3):
        there = None if weights is None else weights.to(device)
        add_scores(held[:count], gradients.to(device), there)
    assert np.array_equal(held.cpu().numpy().view(np.uint32), expected.view(np.uint32))


def test_scores_equal_values_by_hand(device: str) -> None:
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=device)
    gradients = torch.tensor([[0.5, -1.0], [0.0, -0.25]], device=device)
    weights = torch.tensor([[2.0, 3.0], [5.0, -8.0]], device=device, dtype=torch.bfloat16)
    add_scores(scores, gradients, weights)
    assert scores.tolist() == [[2.0, 5.0], [3.0, 6.0]]
    add_scores(scores, gradients)
    assert scores.tolist() == [[2.5, 6.0], [3.0, 6.25]]


def test_product_and_sum_are_not_fused(device: str) -> None:
    """(1 + 2⁻¹²)² rounds to 1 + 2⁻¹¹ before 2²⁴ − … is added; fused, 2⁻²⁴ would show."""
    side = torch.full((100,), 1 + 2.0**-12, device=device)
    scores = torch.full((100,), -(1 + 2.0**-11), device=device)
    add_scores(scores, side, side)
    assert set(scores.tolist()) == {0.0}


def test_subnormal_products_are_not_flushed(device: str) -> None:
    scores = torch.zeros(3, device=device)
    side = torch.tensor([2.0**-70, 2.0**-74, 2.0**-126], device=device)
    add_scores(scores, side, torch.tensor([2.0**-70, 2.0**-75, 0.5], device=device))
    assert scores.tolist() == [2.0**-140, 2.0**-149, 2.0**-127]


def test_other_numbers_of_entries_are_refused() -> None:
    with pytest.raises(MismatchError, match="gradients has 3 entries where 4"):
        add_scores(torch.zeros(4), torch.zeros(3))
    with pytest.raises(MismatchError, match="weights has 5 entries where 4"):
        add_scores(torch.zeros(4), torch.zeros(4), torch.zeros(5))


def test_scores_below_fp32_are_refused() -> None:
    with pytest.raises(UnsupportedInputError, match=r"scores of torch\.bfloat16"):
        add_scores(torch.zeros(4, dtype=torch.bfloat16), torch.zeros(4))


def test_strided_scores_are_refused() -> None:
    with pytest.raises(MismatchError, match="contiguous"):
        add_scores(torch.zeros(8)[::2], torch.zeros(4))


@pytest.mark.gpu
def test_offsets_beyond_32_bits_are_reached() -> None:
    """The last entries of 2³⁰ + 5 scores lie 4 GiB from the first."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    scores = torch.zeros(2**30 + 5, device="cuda")
    add_scores(scores, torch.full((2**30 + 5,), -1.5, dtype=torch.bfloat16, device="cuda"))
    assert float(scores.min()) == float(scores.max()) == 1.5
