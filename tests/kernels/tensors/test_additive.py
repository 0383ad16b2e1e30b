"""Deltas added in place and taken back, against exact NumPy arithmetic."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from patchc.errors import MismatchError, NumericError, UnsupportedInputError
from patchc.kernels.additive_merge import DeltaEntries, add_deltas, put_back

DTYPES = {
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(ml_dtypes.bfloat16),
    torch.float8_e4m3fn: np.dtype(ml_dtypes.float8_e4m3fn),
    torch.float8_e5m2: np.dtype(ml_dtypes.float8_e5m2),
}
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def _words(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().view(INTEGERS[tensor.element_size()]).numpy()


def _entries(count: int, size: int, scale: float, kind: torch.dtype) -> DeltaEntries:
    positions = torch.randperm(size)[:count].sort().values.to(torch.int32)
    return DeltaEntries(positions, torch.randn(count).to(kind), float(np.float32(scale)))


def _on(device: str, part: DeltaEntries) -> DeltaEntries:
    return DeltaEntries(part.positions.to(device), part.deltas.to(device), part.scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("size", "counts"),
    [(1, (1,)), (3, (0, 2)), (33, (20, 21)), (5000, (1025, 2048)), (5000, (1, 0)), (40, (40, 40))],
)
def test_equals_numpy_and_comes_back(
    dtype: torch.dtype, kind: torch.dtype, size: int, counts: tuple[int, ...], device: str
) -> None:
    torch.manual_seed(size)
    base = torch.randn(size).to(dtype)
    scales = (0.3, -1.7)
    parts = [_entries(n, size, s, kind) for n, s in zip(counts, scales, strict=False)]
    value = base.float().numpy().copy()
    touched = np.zeros(size, bool)
    for part in parts:
        at = part.positions.numpy()
        value[at] = value[at] + np.float32(part.scale) * part.deltas.float().numpy()
        touched[at] = True
    rounded = value.astype(DTYPES[dtype]).view(_words(base).dtype)
    expected = np.where(touched, rounded, _words(base))
    there = base.to(device)
    parts = [_on(device, part) for part in parts]
    saved = add_deltas(there, parts)
    assert np.array_equal(_words(there), expected)
    put_back(there, parts, saved)
    assert np.array_equal(_words(there), _words(base))


def _part(positions: list[int], deltas: list[float], scale: float, device: str) -> DeltaEntries:
    at = torch.tensor(positions, dtype=torch.int32, device=device)
    return DeltaEntries(at, torch.tensor(deltas, device=device), scale)


def test_sums_equal_values_by_hand(device: str) -> None:
    tensor = torch.tensor([[1.0, -0.0], [3.0, 4.0]], device=device)
    parts = [_part([0, 3], [1.0, 2.0], 2.0, device), _part([1, 3], [0.0, 4.0], 0.5, device)]
    saved = add_deltas(tensor, parts)
    assert tensor.tolist() == [[3.0, 0.0], [3.0, 10.0]]
    assert _words(tensor)[0, 1] == 0  # −0 + 0 is +0
    put_back(tensor, parts, saved)
    assert tensor.tolist() == [[1.0, -0.0], [3.0, 4.0]]


def test_the_sum_of_both_is_rounded_once(device: str) -> None:
    """256 + 0.75 + 0.75 is 258 in bf16 when rounded at the end, 256 when rounded twice."""
    tensor = torch.full((10,), 256.0, dtype=torch.bfloat16, device=device)
    add_deltas(tensor, [_part([4], [0.75], 1.0, device), _part([4], [0.75], 1.0, device)])
    assert tensor.tolist() == [256.0] * 4 + [258.0] + [256.0] * 5


def test_product_and_sum_are_not_fused(device: str) -> None:
    tensor = torch.full((100,), -(1 + 2.0**-11), device=device)
    step = 1 + 2.0**-12
    add_deltas(tensor, [_part(list(range(100)), [step] * 100, step, device)])
    assert set(tensor.tolist()) == {0.0}


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("value", [1e6, float("inf"), float("nan")])
def test_an_overflow_leaves_the_tensor_as_it_was(value: float, device: str) -> None:
    tensor = torch.ones(9, dtype=torch.float16, device=device)
    parts = [_part([1, 5], [1.0, value], 1.0, device), _part([1, 7], [2.0, value], 1.0, device)]
    with pytest.raises(NumericError, match="flat index 5: the merged value"):
        add_deltas(tensor, parts)
    assert tensor.tolist() == [1.0] * 9


def test_other_numbers_and_dtypes_are_refused() -> None:
    part = _part([1], [1.0], 1.0, "cpu")
    with pytest.raises(UnsupportedInputError, match="3 components"):
        add_deltas(torch.zeros(4), [part] * 3)
    halves = DeltaEntries(part.positions, part.deltas.bfloat16(), 1.0)
    with pytest.raises(MismatchError, match="different dtypes"):
        add_deltas(torch.zeros(4), [part, halves])
    with pytest.raises(MismatchError, match="deltas has 2 entries where 1"):
        add_deltas(torch.zeros(4), [DeltaEntries(part.positions, torch.zeros(2), 1.0)])
