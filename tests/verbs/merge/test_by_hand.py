"""Merges of a few values, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge_inputs import (
    METHODS,
    merge_one,
    read_patched,
    write_sources,
)

import patchc
from patchc import MergeRecipe


def test_task_arithmetic_equals_values_by_hand(tmp_path: Path) -> None:
    recipe = MergeRecipe("task-arithmetic", weight=(1.0, -2.0), lambda_=0.5)
    assert merge_one(tmp_path, [1, 1, 1], [[3, 1, 0], [1, 2, 2]], recipe) == [2, 0, -0.5]


def test_magnitude_equals_values_by_hand(tmp_path: Path) -> None:
    recipe = MergeRecipe("magnitude", density=0.5)
    assert merge_one(tmp_path, [0] * 4, [[3, -4, 1, 2], [1, 1, 1, 1]], recipe) == [4, -3, 0, 0]


def test_ties_equals_values_by_hand(tmp_path: Path) -> None:
    """Means of the agreeing entries; index 3 cancels and follows the majority, which is up."""
    tuned = [[2, 4, 1, 3, -1], [4, -1, 1, -3, 0]]
    recipe = MergeRecipe("ties", density=1)
    assert merge_one(tmp_path, [0] * 5, tuned, recipe) == [3, 4, 1, 3, -1]


def test_ties_weighs_the_mean(tmp_path: Path) -> None:
    recipe = MergeRecipe("ties", density=1, weight=(1.0, 3.0), lambda_=2.0)
    assert merge_one(tmp_path, [0, 0], [[4, 4], [8, -1]], recipe) == [14, 8]


def test_kept_zeros_have_no_vote_and_no_weight(tmp_path: Path) -> None:
    """The first model's trim keeps two zeros; the mean at index 1 is the second model's alone."""
    recipe = MergeRecipe("ties", density=0.75)
    assert merge_one(tmp_path, [0] * 4, [[8, 0, 0, 0], [8, 4, 2, 1]], recipe) == [8, 4, 2, 0]


@pytest.mark.parametrize("method", METHODS)
def test_the_smallest_delta_counts(tmp_path: Path, method: Any) -> None:
    words = {} if method == "task-arithmetic" else {"density": 1}
    found = merge_one(tmp_path, [0, 1], [[-(2.0**-149), 1]], MergeRecipe(method, **words))
    assert found == [-(2.0**-149), 1]


@pytest.mark.parametrize(("up", "expected"), [(1.0, [1, 5]), (-1.0, [-1, -5])])
def test_exact_cancellation_follows_the_majority(
    tmp_path: Path, up: float, expected: list[float]
) -> None:
    recipe = MergeRecipe("ties", density=1)
    assert merge_one(tmp_path, [0, 0], [[up, 5], [up, -5]], recipe) == expected


def test_cancellation_without_a_majority_leaves_the_base(tmp_path: Path) -> None:
    recipe = MergeRecipe("ties", density=1)
    tuned = [[1, -1, 12], [1, -1, 2]]
    assert merge_one(tmp_path, [0, 0, 7], tuned, recipe) == [1, -1, 7]


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_the_majority_is_counted_in_the_scope(tmp_path: Path, scope: Any) -> None:
    base = {name: np.zeros(3, np.float32) for name in ("a", "b")}
    tuned = [
        {"a": np.array([1, 0, 5]), "b": np.array([-1, -1, 0])},
        {"a": np.array([1, 0, -5]), "b": np.array([-1, -1, 0])},
    ]
    models = [{n: v.astype(np.float32) for n, v in model.items()} for model in tuned]
    paths = write_sources(tmp_path, base, models)
    recipe = MergeRecipe("ties", density=1, scope=scope)
    patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe)
    patchc.apply(tmp_path / "m.patchc", paths["base"], out=tmp_path / "patched")
    expected = 5.0 if scope == "tensor" else -5.0
    assert np.frombuffer(read_patched(tmp_path)["a"].data, np.float32)[2] == expected


def test_zero_deltas_keep_the_sign_of_zero(tmp_path: Path) -> None:
    recipe = MergeRecipe("task-arithmetic", weight=-1)
    found = merge_one(tmp_path, [-0.0, -0.0, 1.0], [[-0.0, 0.0, 1.0]], recipe)
    assert np.signbit(found).tolist() == [True, True, False]


def test_dare_rescales_what_it_keeps(tmp_path: Path) -> None:
    recipe = MergeRecipe("dare", density=0.25, seed=11)
    found = merge_one(tmp_path, [0] * 4000, [[1] * 4000], recipe)
    assert set(found) == {0.0, 4.0}
    assert 800 < found.count(4.0) < 1200
