"""The fused selection against the whole method in plain NumPy, tile by tile."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import selection_oracle as oracle
import torch
from numpy.typing import NDArray

from patchc.errors import MismatchError, UnsupportedInputError
from patchc.kernels.philox import KEEP_ALL, Retention, retention_threshold
from patchc.kernels.safepatching_merge import Changes, ComponentTile, RankedScores, select_changes
from patchc.kernels.topk import TopSearch, cut_of
from patchc.kernels.topk.cpu import TopThreshold

DTYPES = {
    "F32": (torch.float32, np.dtype(np.float32)),
    "F16": (torch.float16, np.dtype(np.float16)),
    "BF16": (torch.bfloat16, np.dtype(ml_dtypes.bfloat16)),
    "F8_E4M3": (torch.float8_e4m3fn, np.dtype(ml_dtypes.float8_e4m3fn)),
    "F8_E5M2": (torch.float8_e5m2, np.dtype(ml_dtypes.float8_e5m2)),
}
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
VALUES = {"retain": 0.6, "top_se": 0.3, "top_osm": 0.2, "alpha": 1.7, "beta": 3.0}
EVERYTHING = Retention(0, 0, KEEP_ALL)


def _numpy(tensor: torch.Tensor, name: str) -> NDArray:
    return tensor.view(INTEGERS[tensor.element_size()]).numpy().view(DTYPES[name][1])


class Case:
    """A tensor named "t" with two tuned models and their scores, on the CPU."""

    def __init__(self, base: str, tuned: str, count: int, levels: int) -> None:
        torch.manual_seed(count)
        self.names = base, tuned
        self.base = torch.randn(count).to(DTYPES[base][0])
        moved = [self.base.float() + 0.1 * torch.randn(count) for _ in range(2)]
        self.tuned = [values.to(DTYPES[tuned][0]) for values in moved]
        spread = [torch.rand(count) for _ in range(2)]
        self.scores = [(s * levels).floor() / 3 if levels else s for s in spread]

    def expected(self, options: oracle.Options) -> oracle.OracleTensor:
        parts = tuple(
            oracle.OracleComponent(
                name, {"t": _numpy(tuned, self.names[1])}, {"t": scores.numpy()}, 0
            )
            for name, tuned, scores in zip(("se", "osm"), self.tuned, self.scores, strict=True)
        )
        return oracle.build_model({"t": _numpy(self.base, self.names[0])}, parts, options)["t"]

    def found(self, options: oracle.Options, tile: int, device: str) -> list[Changes]:
        """The changes tile by tile."""
        rank_all = options.rank_among == "all"
        parts = [self._part(name, options, tile, device) for name in ("se", "osm")]
        changes = []
        for first in range(0, self.base.numel(), tile):
            run = slice(first, first + tile)
            now = [
                replace(
                    part,
                    tuned=part.tuned[run],
                    top=replace(part.top, scores=part.top.scores[run]),
                )
                for part in parts
            ]
            base = self.base[run].to(device)
            changes.append(
                select_changes(base, now, first, options.sets, rank_all, options.least_step)
            )
        return changes

    def _part(self, name: str, options: oracle.Options, tile: int, device: str) -> ComponentTile:
        number = ("se", "osm").index(name)
        scores = self.scores[number].to(device)
        threshold = retention_threshold(VALUES["retain"])
        retention = Retention(options.seed, oracle.stream_of(name, "t"), threshold)
        ranked = EVERYTHING if options.rank_among == "all" else retention
        search = TopSearch(int(VALUES[f"top_{name}"] * scores.numel()), device)
        for first in range(0, scores.numel(), tile):
            search.count_high(scores[first : first + tile], first, ranked)
        search.narrow()
        for first in range(0, scores.numel(), tile):
            search.count_low(scores[first : first + tile], first, ranked)
        taken = torch.zeros(1, dtype=torch.int64, device=device)
        top = RankedScores(scores, search.cut(), taken)
        scale = float(np.float32(VALUES[("alpha", "beta")[number]]))
        return ComponentTile(self.tuned[number].to(device), top, retention, scale)


def _check(case: Case, options: oracle.Options, tile: int, device: str) -> None:
    expected = case.expected(options)
    base = _numpy(case.base, case.names[0])
    word = WORDS[base.dtype.itemsize]
    steps = oracle.steps(base.view(word), expected.result.view(word), True)
    changes = case.found(options, tile, device)
    assert all(change.fault is None for change in changes)
    found = [
        (n * tile + at, step)
        for n, change in enumerate(changes)
        for at, step in zip(change.positions.tolist(), change.steps.tolist(), strict=True)
    ]
    assert found == sorted(steps.items())
    tops = np.sum([change.tops for change in changes], axis=0).tolist()
    assert tops == [expected.se.sum(), expected.osm.sum(), (expected.se & expected.osm).sum()]
    applied = np.sum([change.applied for change in changes], axis=0).tolist()
    assert applied == [expected.applied[name].sum() for name in ("se", "osm")]


@pytest.mark.parametrize("base", DTYPES)
@pytest.mark.parametrize("tuned", ["F32", "BF16"])
@pytest.mark.parametrize("count", [1, 3, 33, 2300])
def test_the_fused_selection_equals_the_method(
    base: str, tuned: str, count: int, device: str
) -> None:
    _check(Case(base, tuned, count, 0), oracle.Options(2**64 - 5, VALUES), 1100, device)


@pytest.mark.parametrize("sets", ["difference", "intersection", "union"])
@pytest.mark.parametrize("rank_among", ["retained", "all"])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("tile", [1100, 4096])
def test_ties_and_set_operations(
    sets: str, rank_among: str, levels: int, tile: int, device: str
) -> None:
    options = oracle.Options(9, VALUES, sets=sets, rank_among=rank_among)
    _check(Case("BF16", "F32", 2300, levels), options, tile, device)


def test_changes_of_fewer_steps_are_dropped(device: str) -> None:
    _check(Case("BF16", "F32", 2300, 5), oracle.Options(9, VALUES, least_step=6), 1500, device)


def _by_mask(tuned: list[float], marks: list[int], scale: float, device: str) -> ComponentTile:
    mask = torch.tensor(marks, dtype=torch.bool, device=device)
    return ComponentTile(torch.tensor(tuned, device=device), mask, EVERYTHING, scale)


def test_masks_equal_values_by_hand(device: str) -> None:
    base = torch.tensor([1.0, 2.0, -0.0, 4.0, 5.0], device=device).bfloat16()
    se = _by_mask([1.0078125, 9, 9, 3.984375, 9], [1, 0, 0, 1, 0], 1.0, device)
    osm = _by_mask([9, 9, 0, 4.03125, 5], [0, 0, 1, 1, 1], 2.0, device)
    found = select_changes(base, [se, osm], 0, "union")
    # 1 → one step up; −0 → +0 is a step; 4 − 0.015625 + 0.0625 rounds to 4.0625, two steps.
    assert found.positions.tolist() == [0, 2, 3]
    assert found.steps.tolist() == [1, 1, 2]
    assert (found.tops, found.applied, found.fault) == ((2, 3, 1), (2, 3), None)
    alone = select_changes(base, [se], 0, "difference")
    assert alone.positions.tolist() == [0, 3]
    assert alone.steps.tolist() == [1, -1]
    assert (alone.tops, alone.applied) == ((2,), (2,))


def test_product_and_sum_are_not_fused(device: str) -> None:
    base = torch.full((100,), -(1 + 2.0**-11), device=device)
    part = _by_mask([-(2.0**-12)] * 100, [1] * 100, 1 + 2.0**-12, device)
    steps = select_changes(base, [part], 0, "union").steps
    # The sum is +0, one step above −0, in 0xBF801000 − 0x80000000 + 1 steps.
    assert set(steps.tolist()) == {0x3F801000 + 1}


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize(
    ("where", "value", "fault"),
    [
        ("base", np.inf, (0, 3)),
        ("se", np.nan, (0, 3)),
        ("osm", -np.inf, (1, 3)),
        ("sum", 3e38, (2, 3)),
    ],
)
def test_faults_count_inside_the_selection_only(
    where: str, value: float, fault: tuple[int, int], device: str
) -> None:
    values = {name: [1.0] * 6 for name in ("base", "se", "osm")}
    for at in (1, 3, 4):
        values["se" if where == "sum" else where][at] = value
    marks = [0, 0, 1, 1, 1, 1]
    base = torch.tensor(values["base"], device=device)
    parts = [_by_mask(values[name], marks, 2.0, device) for name in ("se", "osm")]
    assert select_changes(base, parts, 0, "union").fault == fault
    quiet = [_by_mask(values[name], [1, 0, 1, 0, 0, 1], 2.0, device) for name in ("se", "osm")]
    assert select_changes(base, quiet, 0, "union").fault is None


def test_an_entry_cut_off_by_a_tie_is_no_fault(device: str) -> None:
    """The key is divided: only the first of the equal scores is in, the rest may hold anything."""
    scores = torch.ones(2000, device=device)
    tuned = torch.full((2000,), torch.nan, device=device)
    tuned[0] = 3.0
    cut = cut_of(TopThreshold(key=0x3F800000, ties=1, available_ties=2000), device)
    top = RankedScores(scores, cut, torch.zeros(1, dtype=torch.int64, device=device))
    found = select_changes(
        torch.ones(2000, device=device), [ComponentTile(tuned, top, EVERYTHING, 1.0)], 0, "union"
    )
    assert (found.fault, found.positions.tolist()) == (None, [0])
    assert int(top.taken) == 2000


def test_other_numbers_are_refused(device: str) -> None:
    part = _by_mask([1.0, 2.0], [1, 1], 1.0, device)
    with pytest.raises(MismatchError, match="tuned has 2 entries where 3"):
        select_changes(torch.zeros(3, device=device), [part], 0, "union")
    with pytest.raises(UnsupportedInputError, match="3 components"):
        select_changes(torch.zeros(2, device=device), [part] * 3, 0, "union")
    with pytest.raises(UnsupportedInputError, match=r"a tensor of torch\.int32"):
        select_changes(torch.zeros(2, device=device, dtype=torch.int32), [part], 0, "union")
