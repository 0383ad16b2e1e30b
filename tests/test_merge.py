"""Merges of task vectors against the plain-NumPy oracle, bit for bit, and every refusal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import merge_oracle as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_checkpoints import NUMPY, Raw, normal, raw, read_model, tree, write_model

import patchc
from patchc import MergeRecipe, Recipe
from patchc.checkpoint import open_checkpoint
from patchc.errors import (
    CheckpointError,
    MismatchError,
    NumericError,
    OutputError,
    PatchcError,
    UnsupportedInputError,
    UsageError,
)
from patchc.patching.digest import digest_checkpoint
from patchc.recipe import MergeOverride, exact_match
from patchc.runtime.workers import Workers

Arrays = dict[str, NDArray]
METHODS = ["task-arithmetic", "dare", "ties", "magnitude"]
FIRST, SECOND, NORM = "layers.0.weight", "layers.1.weight", "norm.weight"


def _models(
    shapes: dict[str, tuple[int, ...]],
    count: int = 2,
    dtype: str = "BF16",
    tuned_dtype: str = "F32",
    levels: int | None = None,
    seed: int = 0,
) -> tuple[Arrays, list[Arrays]]:
    """A base and tuned models. ``levels`` gives τ few values, so that they tie and cancel."""
    rng = np.random.default_rng(seed)
    base = {name: normal(shape, dtype, seed + i) for i, (name, shape) in enumerate(shapes.items())}
    if levels is not None:  # small whole numbers: every sum and difference is exact
        base = {
            name: rng.integers(-2, 3, value.shape).astype(np.float32).astype(NUMPY[dtype])
            for name, value in base.items()
        }
    tuned = []
    for _ in range(count):
        model = {}
        for name, value in base.items():
            moved = rng.normal(scale=2e-3, size=value.shape)
            if levels is not None:
                moved = rng.integers(-levels, levels + 1, value.shape).astype(np.float64)
            changed = (value.astype(np.float32) + moved).astype(np.float32)
            model[name] = changed.astype(NUMPY[tuned_dtype])
        tuned.append(model)
    return base, tuned


def _small() -> tuple[Arrays, list[Arrays]]:
    return _models({FIRST: (6, 10), SECOND: (6, 10), NORM: (10,)})


def _write(
    folder: Path, base: Any, tuned: list[Any], shards: tuple[int, int] = (1, 1)
) -> dict[str, Any]:
    return {
        "base": write_model(folder / "base", base, shards[0]),
        "tuned": [
            write_model(folder / f"tuned-{i}", model, shards[1]) for i, model in enumerate(tuned)
        ],
    }


def _own_factors(
    recipe: MergeRecipe, models: int, names: list[str]
) -> dict[str, tuple[tuple[float, ...], float]]:
    """The weights and λ of each tensor, the later override first."""
    own = {}
    for name in names:
        found = [one for one in recipe.overrides[::-1] if re.search(one.match, name)]
        weights = [one.weight for one in found if one.weight is not None] + [recipe.weight]
        lambdas = [one.lambda_ for one in found if one.lambda_ is not None] + [recipe.lambda_]
        each = weights[0] if isinstance(weights[0], tuple) else (weights[0],) * models
        own[name] = (each, lambdas[0])
    return own


def _oracle_words(recipe: MergeRecipe, models: int, names: list[str]) -> oracle.Merge:
    assert recipe.density is not None
    assert recipe.rescale is not None
    return oracle.Merge(
        recipe.method,
        recipe.density,
        recipe.weights(models),
        recipe.lambda_,
        recipe.seed,
        recipe.scope,
        recipe.rescale,
        _own_factors(recipe, models, names),
    )


def _check(folder: Path, base: Arrays, tuned: list[Arrays], recipe: MergeRecipe, **how: Any) -> int:
    """Build, apply, and compare the patched model with the oracle. Returns the entries changed."""
    expected = oracle.merge_models(base, tuned, _oracle_words(recipe, len(tuned), [*base]), [*base])
    shards = how.pop("shards", (1, 1))
    paths = _write(folder, base, tuned, shards)
    patch = folder / "merge.patchc"
    report = patchc.build(**paths, out=patch, recipe=recipe, **how)
    patchc.apply(patch, paths["base"], out=folder / "patched")
    found = read_model(folder / "patched")
    assert set(found) == set(base)
    for name, value in base.items():
        assert found[name] == raw(expected[name].reshape(value.shape)), name
    assert report.patch is not None
    changed = sum(
        int(np.count_nonzero(_bits(expected[name]) != _bits(value))) for name, value in base.items()
    )
    assert report.patch.entries == changed
    return changed


def _bits(values: NDArray) -> NDArray:
    return np.ascontiguousarray(values).ravel().view(f"u{values.dtype.itemsize}")


WEIGHTS = st.sampled_from([0.0, 1.0, 0.3, 0.7, 2.5])


@st.composite
def _recipes(draw: st.DrawFn, models: int, names: list[str]) -> MergeRecipe:
    method = draw(st.sampled_from(METHODS))
    weights = WEIGHTS if method == "ties" else WEIGHTS | st.sampled_from([-1.0, -0.4])
    weight = weights | st.lists(weights, min_size=models, max_size=models)
    lambda_ = st.sampled_from([1.0, 0.0, 0.4, -1.3])
    match = st.sampled_from(["weight", *map(exact_match, names)])
    one = st.builds(MergeOverride, match, weight, st.none() | lambda_) | st.builds(
        MergeOverride, match, lambda_=lambda_
    )
    given_words: dict[str, Any] = {
        "weight": draw(weight),
        "lambda_": draw(lambda_),
        "overrides": draw(st.just(()) | st.lists(one, min_size=1, max_size=3)),
    }
    if method != "task-arithmetic":
        shares = st.sampled_from([0.0, 1.0, 0.2, 0.5]) | st.floats(0, 1)
        given_words["density"] = draw(shares)
    if method == "dare":
        given_words["seed"] = draw(st.integers(0, 2**64 - 1))
        given_words["rescale"] = draw(st.booleans())
    elif method != "task-arithmetic":
        given_words["scope"] = draw(st.sampled_from(["tensor", "global"]))
    try:
        return MergeRecipe(method, **given_words)
    except UsageError:
        raise AssertionError(given_words) from None


SHAPES = st.one_of(
    st.sampled_from([(), (0,), (3, 0), (1,), (4097,), (3, 1366)]),
    st.lists(st.integers(1, 23), min_size=1, max_size=3).map(tuple),
)


@settings(max_examples=80)
@given(data=st.data())
def test_equals_the_oracle(data: st.DataObject) -> None:
    shapes = data.draw(st.lists(SHAPES, min_size=1, max_size=3))
    count = data.draw(st.integers(1, 4))
    base, tuned = _models(
        {f"layers.{i}.weight": shape for i, shape in enumerate(shapes)},
        count,
        data.draw(st.sampled_from(["BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"])),
        data.draw(st.sampled_from(["F32", "BF16"])),
        data.draw(st.sampled_from([None, 1, 2])),
        data.draw(st.integers(0, 1000)),
    )
    recipe = data.draw(_recipes(count, list(base)))
    if recipe.rescale and recipe.share < 0.1:
        recipe = replace(recipe, rescale=False)  # the quotient may overflow the smallest floats
    most = len(shapes)
    with tempfile.TemporaryDirectory() as folder:
        _check(
            Path(folder),
            base,
            tuned,
            recipe,
            threads=data.draw(st.integers(1, 3)),
            chunk_bits=data.draw(st.sampled_from([12, 13, 20])),
            shards=(data.draw(st.integers(1, most)), data.draw(st.integers(1, most))),
        )


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("task-arithmetic", {}),
        ("dare", {}),
        ("dare", {"rescale": False, "density": 0.3}),
        ("magnitude", {}),
        ("magnitude", {"scope": "global"}),
        ("ties", {"density": 0.7}),
        ("ties", {"density": 0.7, "scope": "global"}),
    ],
)
def test_each_tensor_has_its_own_factors(
    tmp_path: Path, method: Any, words: dict[str, Any]
) -> None:
    """Weights and λ of one tensor, the weights of another, the λ of all but one."""
    shapes = {FIRST: (70, 50), SECOND: (20, 50), NORM: (33,), "other": (9, 100)}
    base, tuned = _models(shapes, 3, levels=3, seed=3)
    sign = 1 if method == "ties" else -1
    overrides = (
        MergeOverride("weight", lambda_=-0.6),
        MergeOverride(exact_match(FIRST), weight=(0.3, sign * 1.7, 0.9), lambda_=1.25),
        MergeOverride(exact_match(SECOND), weight=sign * 0.4),
    )
    recipe = MergeRecipe(method, weight=(1.0, 0.5, 2.0), lambda_=0.8, overrides=overrides, **words)
    _check(tmp_path, base, tuned, recipe, threads=2, chunk_bits=12)
    found = _patched(tmp_path)
    names = list(base)
    for left_out in range(3):
        fewer = replace(recipe, overrides=overrides[:left_out] + overrides[left_out + 1 :])
        merge = _oracle_words(fewer, 3, names)
        otherwise = oracle.merge_models(base, tuned, merge, names)
        assert any(found[n] != raw(otherwise[n].reshape(base[n].shape)) for n in names)


@pytest.mark.parametrize("scope", ["tensor", "global"])
@pytest.mark.parametrize("method", ["ties", "magnitude"])
@pytest.mark.parametrize(("threads", "chunk_bits"), [(1, 12), (3, 12), (2, 13), (2, 20)])
def test_ties_across_chunks_and_tensors(
    tmp_path: Path, method: Any, scope: Any, threads: int, chunk_bits: int
) -> None:
    """Three values of |τ|: the cut falls into a run through several chunks and tensors."""
    base, tuned = _models({FIRST: (7, 1171), SECOND: (4096,), NORM: (4097,)}, 3, levels=2, seed=7)
    recipe = MergeRecipe(method, density=0.55, scope=scope)
    changed = _check(
        tmp_path, base, tuned, recipe, threads=threads, chunk_bits=chunk_bits, shards=(2, 3)
    )
    assert changed > 1000


@pytest.mark.parametrize("tuned_dtype", ["F32", "BF16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_chunk_in_several_pieces(tmp_path: Path, method: Any, tuned_dtype: str) -> None:
    """One chunk of two pieces, and digests that do not show it."""
    base, tuned = _models({FIRST: (3, 44_001)}, tuned_dtype=tuned_dtype)
    words = {} if method == "task-arithmetic" else {"density": 0.4}
    changed = _check(tmp_path, base, tuned, MergeRecipe(method, **words), chunk_bits=20)
    assert changed > 10_000
    with patchc.open_patch(tmp_path / "merge.patchc") as opened:
        inputs = opened.metadata["inputs"]
    for number in range(2):
        with Workers(1) as workers, open_checkpoint(tmp_path / f"tuned-{number}") as model:
            assert inputs[f"model-{number}"] == digest_checkpoint(model, workers).hex()


def test_a_global_cut_takes_equal_values_by_name_then_index(tmp_path: Path) -> None:
    """Every |τ| is 1; half of 12 entries: all four of the first name, two of the next."""
    names = ["b", "a", "c"]  # not in the order of the file
    base = {name: np.zeros(4, np.float32) for name in names}
    tuned = {name: np.ones(4, np.float32) for name in names}
    paths = _write(tmp_path, base, [tuned])
    recipe = MergeRecipe("magnitude", density=0.5, scope="global")
    patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe)
    patchc.apply(tmp_path / "m.patchc", paths["base"], out=tmp_path / "patched")
    found = {n: list(np.frombuffer(t.data, np.float32)) for n, t in _patched(tmp_path).items()}
    assert found == {"a": [1, 1, 1, 1], "b": [1, 1, 0, 0], "c": [0, 0, 0, 0]}


def _patched(folder: Path) -> dict[str, Raw]:
    return read_model(folder / "patched")


def _merge_one(
    folder: Path, base: list[float], tuned: list[list[float]], recipe: MergeRecipe
) -> list[float]:
    """Merge models of one fp32 tensor, and give the patched values."""
    models = [{"w": np.array(values, np.float32)} for values in (base, *tuned)]
    paths = _write(folder, models[0], models[1:])
    patchc.build(**paths, out=folder / "m.patchc", recipe=recipe)
    patchc.apply(folder / "m.patchc", paths["base"], out=folder / "patched")
    return list(np.frombuffer(_patched(folder)["w"].data, np.float32).tolist())


def test_task_arithmetic_by_hand(tmp_path: Path) -> None:
    recipe = MergeRecipe("task-arithmetic", weight=(1.0, -2.0), lambda_=0.5)
    assert _merge_one(tmp_path, [1, 1, 1], [[3, 1, 0], [1, 2, 2]], recipe) == [2, 0, -0.5]


def test_magnitude_by_hand(tmp_path: Path) -> None:
    recipe = MergeRecipe("magnitude", density=0.5)
    assert _merge_one(tmp_path, [0] * 4, [[3, -4, 1, 2], [1, 1, 1, 1]], recipe) == [4, -3, 0, 0]


def test_ties_by_hand(tmp_path: Path) -> None:
    """Means of the agreeing entries; index 3 cancels and follows the majority, which is up."""
    tuned = [[2, 4, 1, 3, -1], [4, -1, 1, -3, 0]]
    recipe = MergeRecipe("ties", density=1)
    assert _merge_one(tmp_path, [0] * 5, tuned, recipe) == [3, 4, 1, 3, -1]


def test_ties_weighs_the_mean(tmp_path: Path) -> None:
    recipe = MergeRecipe("ties", density=1, weight=(1.0, 3.0), lambda_=2.0)
    assert _merge_one(tmp_path, [0, 0], [[4, 4], [8, -1]], recipe) == [14, 8]


def test_kept_zeros_have_no_vote_and_no_weight(tmp_path: Path) -> None:
    """The first model's trim keeps two zeros; the mean at index 1 is the second model's alone."""
    recipe = MergeRecipe("ties", density=0.75)
    assert _merge_one(tmp_path, [0] * 4, [[8, 0, 0, 0], [8, 4, 2, 1]], recipe) == [8, 4, 2, 0]


@pytest.mark.parametrize("method", METHODS)
def test_the_smallest_delta_counts(tmp_path: Path, method: Any) -> None:
    words = {} if method == "task-arithmetic" else {"density": 1}
    found = _merge_one(tmp_path, [0, 1], [[-(2.0**-149), 1]], MergeRecipe(method, **words))
    assert found == [-(2.0**-149), 1]


@pytest.mark.parametrize(("up", "expected"), [(1.0, [1, 5]), (-1.0, [-1, -5])])
def test_exact_cancellation_follows_the_majority(
    tmp_path: Path, up: float, expected: list[float]
) -> None:
    recipe = MergeRecipe("ties", density=1)
    assert _merge_one(tmp_path, [0, 0], [[up, 5], [up, -5]], recipe) == expected


def test_cancellation_without_a_majority_leaves_the_base(tmp_path: Path) -> None:
    recipe = MergeRecipe("ties", density=1)
    tuned = [[1, -1, 12], [1, -1, 2]]
    assert _merge_one(tmp_path, [0, 0, 7], tuned, recipe) == [1, -1, 7]


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_the_majority_is_counted_in_the_scope(tmp_path: Path, scope: Any) -> None:
    base = {name: np.zeros(3, np.float32) for name in ("a", "b")}
    tuned = [
        {"a": np.array([1, 0, 5]), "b": np.array([-1, -1, 0])},
        {"a": np.array([1, 0, -5]), "b": np.array([-1, -1, 0])},
    ]
    models = [{n: v.astype(np.float32) for n, v in model.items()} for model in tuned]
    paths = _write(tmp_path, base, models)
    recipe = MergeRecipe("ties", density=1, scope=scope)
    patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe)
    patchc.apply(tmp_path / "m.patchc", paths["base"], out=tmp_path / "patched")
    expected = 5.0 if scope == "tensor" else -5.0
    assert np.frombuffer(_patched(tmp_path)["a"].data, np.float32)[2] == expected


def test_zero_deltas_keep_the_sign_of_zero(tmp_path: Path) -> None:
    recipe = MergeRecipe("task-arithmetic", weight=-1)
    found = _merge_one(tmp_path, [-0.0, -0.0, 1.0], [[-0.0, 0.0, 1.0]], recipe)
    assert np.signbit(found).tolist() == [True, True, False]


def test_dare_rescales_what_it_keeps(tmp_path: Path) -> None:
    recipe = MergeRecipe("dare", density=0.25, seed=11)
    found = _merge_one(tmp_path, [0] * 4000, [[1] * 4000], recipe)
    assert set(found) == {0.0, 4.0}
    assert 800 < found.count(4.0) < 1200


def test_one_file_for_threads_layouts_and_chunk_order(tmp_path: Path) -> None:
    base, tuned = _models({f"layers.{i}.weight": (5, 997) for i in range(4)}, levels=2)
    for method in METHODS:
        files = set()
        for number, (threads, shards) in enumerate([(1, (1, 1)), (3, (4, 2))]):
            folder = tmp_path / method / str(number)
            paths = _write(folder, base, tuned, shards)
            out = folder / "m.patchc"
            recipe = MergeRecipe(method)
            patchc.build(**paths, out=out, recipe=recipe, threads=threads, chunk_bits=12)
            files.add(out.read_bytes())
        assert len(files) == 1


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("dare", {"seed": 1}),
        ("dare", {"density": 0.51}),
        ("dare", {"rescale": False}),
        ("ties", {"density": 0.21}),
        ("ties", {"weight": (1.0, 1.5)}),
        ("ties", {"scope": "global"}),
        ("magnitude", {"scope": "global"}),
        ("magnitude", {"lambda_": 0.9}),
        ("task-arithmetic", {"weight": 0.9}),
    ],
)
def test_every_parameter_matters(tmp_path: Path, method: Any, change: dict[str, Any]) -> None:
    base, tuned = _models({FIRST: (70, 50), SECOND: (20, 50)})
    tuned[0][SECOND] *= np.float32(1.5)
    paths = _write(tmp_path, base, tuned)
    first, second = MergeRecipe(method), MergeRecipe(method).with_changes(**change)
    results = {
        patchc.build(**paths, out=tmp_path / f"{i}.patchc", recipe=recipe).patch.result_digest
        for i, recipe in enumerate((first, second))
    }
    assert len(results) == 2


def test_provenance(tmp_path: Path) -> None:
    base, tuned = _small()
    base["count"] = np.arange(3, dtype=np.int32)
    for model in tuned:
        model["count"] = base["count"]
    recipe = MergeRecipe("ties", weight=(0.4, 0.6), exclude=("norm",))
    report = patchc.build(**_write(tmp_path, base, tuned), out=tmp_path / "m.patchc", recipe=recipe)
    assert report.plan.candidates == (FIRST, SECOND)
    with patchc.open_patch(tmp_path / "m.patchc") as opened:
        metadata = opened.metadata
    assert metadata["kind"] == "build"
    assert MergeRecipe.from_json(metadata["recipe"]) == recipe
    assert sorted(metadata["inputs"]) == ["model-0", "model-1"]
    assert len(set(metadata["inputs"].values())) == 2
    assert metadata["statistics"] == {n: {"model-0": 12, "model-1": 12} for n in (FIRST, SECOND)}


@pytest.mark.parametrize("method", METHODS)
def test_dry_run_writes_nothing_and_bounds_the_truth(tmp_path: Path, method: Any) -> None:
    base, tuned = _models({FIRST: (60, 90), SECOND: (7, 9)}, 1)
    paths = _write(tmp_path, base, tuned)
    before = tree(tmp_path)
    arguments: dict[str, Any] = {"out": tmp_path / "m.patchc", "recipe": MergeRecipe(method)}
    dry = patchc.build(**paths, **arguments, dry_run=True)
    assert dry.patch is None
    assert tree(tmp_path) == before
    report = patchc.build(**paths, **arguments)
    assert report.plan == dry.plan
    assert report.patch is not None
    assert 0 < report.patch.entries <= dry.plan.selected <= dry.plan.candidate_words == 5463


# Refusals --------------------------------------------------------------------------------------

Change = Callable[[Any, list[Any]], None]


def _set(model: Any, name: str, value: Any) -> None:
    model[name] = value


ODD: dict[str, tuple[Change, MergeRecipe, type[PatchcError], str]] = {
    "missing": (
        lambda _, t: t[1].pop(SECOND),
        MergeRecipe("dare"),
        MismatchError,
        rf"tuned-1: tensor '{SECOND}' is missing",
    ),
    "shape": (
        lambda _, t: _set(t[0], SECOND, np.zeros((3, 20), np.float32)),
        MergeRecipe("dare"),
        MismatchError,
        rf"tuned-0: tensor '{SECOND}' has shape \[3, 20\]",
    ),
    "extra": (
        lambda _, t: _set(t[1], "ghost", np.zeros(2, np.float32)),
        MergeRecipe("dare"),
        MismatchError,
        "tuned-1: tensor 'ghost' is not in the base",
    ),
    "tuned dtype": (
        lambda _, t: _set(t[1], NORM, np.zeros(10, np.int32)),
        MergeRecipe("dare"),
        MismatchError,
        f"tuned-1: tensor '{NORM}' is I32",
    ),
    "integers differ": (
        lambda b, t: [_set(m, "n", np.full(3, i, np.int32)) for i, m in enumerate((b, *t))],
        MergeRecipe("dare"),
        MismatchError,
        "tensor 'n' is I32 in the base.*exclude it",
    ),
    "doubles of another dtype": (
        lambda b, t: [_set(m, "n", np.zeros(3, d)) for m, d in zip((b, *t), "dff", strict=True)],
        MergeRecipe("dare"),
        MismatchError,
        "tensor 'n' is F64",
    ),
    "integers missing": (
        lambda b, _: _set(b, "n", np.zeros(3, np.int32)),
        MergeRecipe("dare"),
        MismatchError,
        "tensor 'n' is missing",
    ),
    "nothing left": (
        lambda *_: None,
        MergeRecipe("dare", exclude=("",)),
        MismatchError,
        "nothing to build",
    ),
    "bad expression": (
        lambda *_: None,
        MergeRecipe("dare", include=("(",)),
        UsageError,
        "regular expression",
    ),
    "weights": (
        lambda *_: None,
        MergeRecipe("dare", weight=(1.0, 2.0, 3.0)),
        UsageError,
        "3 weights for 2 tuned models",
    ),
    "quantised": (
        lambda _, t: _set(t[1], "layers.0.qweight", np.zeros(4, np.int32)),
        MergeRecipe("dare"),
        UnsupportedInputError,
        "GPTQ or AWQ",
    ),
}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("case", ODD)
def test_refused_before_anything_is_written(tmp_path: Path, case: str, dry_run: bool) -> None:
    change, recipe, error, message = ODD[case]
    base, tuned = _small()
    change(base, tuned)
    paths = _write(tmp_path, base, tuned)
    before = tree(tmp_path)
    with pytest.raises(error, match=message):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe, dry_run=dry_run)
    assert tree(tmp_path) == before


def test_what_is_excluded_may_differ(tmp_path: Path) -> None:
    base, tuned = _small()
    base["n"], tuned[0]["n"] = np.zeros(3, np.int32), np.ones(3, np.int32)
    tuned[1]["extra.head"] = np.ones(3, np.float32)
    recipe = MergeRecipe("ties", exclude=("^n$", "extra"))
    report = patchc.build(**_write(tmp_path, base, tuned), out=tmp_path / "m.patchc", recipe=recipe)
    assert report.plan.candidates == (FIRST, SECOND, NORM)


def test_one_tuned_model_needs_no_list(tmp_path: Path) -> None:
    paths = _write(tmp_path, *_models({FIRST: (6, 10)}, 1))
    recipe = MergeRecipe("dare")
    files = set()
    for number, tuned in enumerate((paths["tuned"], paths["tuned"][0], str(paths["tuned"][0]))):
        out = tmp_path / f"{number}.patchc"
        patchc.build(paths["base"], tuned=tuned, out=out, recipe=recipe)
        files.add(out.read_bytes())
    assert len(files) == 1


def test_no_tuned_model(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", _small()[0])
    with pytest.raises(UsageError, match="at least one tuned model"):
        patchc.build(base, tuned=[], out=tmp_path / "m.patchc", recipe=MergeRecipe("ties"))


@pytest.mark.parametrize("out", ["base", "tuned-1/m.patchc"])
def test_output_inside_an_input(tmp_path: Path, out: str) -> None:
    paths = _write(tmp_path, *_small())
    with pytest.raises(OutputError):
        patchc.build(**paths, out=tmp_path / out, recipe=MergeRecipe("dare"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["base", "tuned"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, method: Any, where: str, value: float) -> None:
    base, tuned = _models({FIRST: (2, 4100)})
    (base if where == "base" else tuned[1])[FIRST][1, 4000] = value
    paths = _write(tmp_path, base, tuned)
    before = tree(tmp_path)
    with pytest.raises(NumericError, match=f"{FIRST}.*flat index 8100"):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=MergeRecipe(method), chunk_bits=12)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("method", METHODS)
def test_the_first_model_at_fault_is_named_wherever_it_is_in_the_chunk(
    tmp_path: Path, method: Any
) -> None:
    """The second model's fault lies in an earlier piece of the same chunk."""
    base, tuned = _models({FIRST: (10,), SECOND: (150_000,)})
    tuned[0][SECOND][140_001] = tuned[1][SECOND][77] = np.nan
    paths = _write(tmp_path, base, tuned)
    with pytest.raises(NumericError, match=r"flat index 140001: .*tuned-0"):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=MergeRecipe(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_difference_or_a_sum_that_overflows(tmp_path: Path, method: Any) -> None:
    largest = float(np.finfo(np.float32).max)
    recipe = MergeRecipe(method, **({} if method == "task-arithmetic" else {"density": 1}))
    with pytest.raises(NumericError, match=r"'w', flat index 1.*difference"):
        _merge_one(tmp_path / "a", [0, -largest], [[1, largest]], recipe)
    with pytest.raises(NumericError, match=r"'w', flat index 1:.*too large"):
        _merge_one(tmp_path / "b", [0, 0], [[1, largest]] * 2, replace(recipe, lambda_=2.0))


def test_infinite_terms_that_cancel(tmp_path: Path) -> None:
    recipe = MergeRecipe("ties", density=1, weight=2)
    with pytest.raises(NumericError, match=r"'w', flat index 1:.*too large"):
        _merge_one(tmp_path, [0, 0], [[1, 3e38], [1, -3e38]], recipe)


def test_overflow_of_a_small_float(tmp_path: Path) -> None:
    base = {FIRST: np.full(5, 6e4, np.float16)}
    tuned = {FIRST: np.full(5, 7e4, np.float32)}
    paths = _write(tmp_path, base, [tuned])
    with pytest.raises(NumericError, match=f"{FIRST}.*flat index 0.*too large"):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=MergeRecipe("task-arithmetic"))


def test_a_model_that_changes_during_the_run(tmp_path: Path) -> None:
    base, tuned = _models({f"layers.{i}.weight": (50, 100) for i in range(6)})
    paths = _write(tmp_path, base, tuned)
    weights = paths["tuned"][1] / "model.safetensors"
    os.utime(weights, ns=(0, 0))  # so that the change below cannot fall on the same clock tick

    def change(_event: object) -> None:
        with weights.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(bytes(4))

    with pytest.raises(CheckpointError, match=r"tuned-1/.*was changed while in use"):
        patchc.build(
            **paths, out=tmp_path / "m.patchc", recipe=MergeRecipe("ties"), progress=change
        )
    assert not (tmp_path / "m.patchc").exists()


# Recipes ---------------------------------------------------------------------------------------


def test_defaults_and_round_trip() -> None:
    shares = {method: MergeRecipe(method).density for method in METHODS}
    assert shares == {"task-arithmetic": 1.0, "dare": 0.5, "ties": 0.2, "magnitude": 0.2}
    assert MergeRecipe("dare").rescale is True
    assert MergeRecipe("ties").rescale is False
    recipe = MergeRecipe("ties", weight=[1, 2], lambda_=0.5, scope="global", include=["a"])
    assert recipe.weights(2) == (1.0, 2.0)
    assert recipe.to_json()["lambda"] == 0.5
    assert MergeRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert MergeRecipe("ties", weight=[3]).weights(4) == (3.0,) * 4


def test_provenance_without_overrides_has_no_key_for_them() -> None:
    assert MergeRecipe("ties", weight=(1, 2)).to_json() == {
        "method": "ties",
        "density": 0.2,
        "weight": [1.0, 2.0],
        "lambda": 1.0,
        "seed": 0,
        "scope": "tensor",
        "rescale": False,
        "include": [],
        "exclude": [],
    }


def test_overrides_round_trip_and_the_later_one_wins() -> None:
    tables = [
        {"match": "layers", "weight": [1, -2], "lambda": -0.5},
        {"match": r"\.0\.", "weight": [3]},
        {"match": r"\.1\.", "lambda": 0},
    ]
    recipe = MergeRecipe.from_json({"method": "dare", "overrides": tables})
    assert recipe.overrides == (
        MergeOverride("layers", (1.0, -2.0), -0.5),
        MergeOverride(r"\.0\.", 3.0),
        MergeOverride(r"\.1\.", None, 0.0),
    )
    assert MergeRecipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    first, second = recipe.for_tensor(FIRST), recipe.for_tensor(SECOND)
    assert (first.weight, first.lambda_) == (3.0, -0.5)
    assert (second.weight, second.lambda_) == ((1.0, -2.0), 0.0)
    assert recipe.for_tensor(NORM).to_json() == recipe.to_json()
    assert hash(recipe) == hash(MergeRecipe.from_json(recipe.to_json()))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((MergeOverride("layers", lambda_=2), MergeOverride("layer_", weight=2)), "'layer_'.*none"),
        ((MergeOverride("layers", weight=(1, 2, 3)),), "'layers': there are 3 weights for 2"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_overrides_that_do_not_fit_the_models(
    tmp_path: Path, overrides: tuple[MergeOverride, ...], message: str, dry_run: bool
) -> None:
    paths = _write(tmp_path, *_small())
    recipe = MergeRecipe("dare", overrides=overrides)
    with pytest.raises(UsageError, match=message):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe, dry_run=dry_run)
    assert not (tmp_path / "m.patchc").exists()


def test_an_override_is_not_for_tensors_that_take_no_part(tmp_path: Path) -> None:
    paths = _write(tmp_path, *_small())
    recipe = MergeRecipe("dare", exclude=("norm",), overrides=(MergeOverride("norm", weight=2),))
    with pytest.raises(UsageError, match="'norm' matches none of the 2 tensors"):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "method is missing"),
        ({"method": "slerp"}, "method is 'slerp'"),
        ({"method": ["ties"]}, "method is"),
        ({"method": "ties", "denstiy": 0.2}, "unknown key 'denstiy'"),
        ({"method": "ties", "lambda_": 1}, "unknown key 'lambda_'"),
        ({"method": "ties", "density": 1.01}, "density is 1.01"),
        ({"method": "ties", "density": "0.2"}, "density"),
        ({"method": "ties", "density": True}, "density"),
        ({"method": "ties", "density": float("nan")}, "density"),
        ({"method": "ties", "weight": []}, "weight is empty"),
        ({"method": "ties", "weight": "11"}, "weight"),
        ({"method": "ties", "weight": [1, None]}, "weight"),
        ({"method": "ties", "weight": float("inf")}, "weight"),
        ({"method": "ties", "weight": {"a": 1}}, "weight"),
        ({"method": "ties", "weight": [1, -1]}, "none may be negative"),
        ({"method": "ties", "lambda": 1e39}, "lambda is"),
        ({"method": "ties", "seed": 1}, "ties has no seed"),
        ({"method": "dare", "seed": 2**64}, "seed"),
        ({"method": "dare", "seed": 1.0}, "seed"),
        ({"method": "dare", "rescale": 1}, "rescale is 1"),
        ({"method": "ties", "rescale": True}, "ties has no rescale"),
        ({"method": "dare", "scope": "global"}, "dare has no scope"),
        ({"method": "ties", "scope": "row"}, "scope is 'row'"),
        ({"method": "task-arithmetic", "density": 0.5}, "has no density"),
        ({"method": "ties", "include": "layers"}, "include"),
        ({"method": "ties", "exclude": [1]}, "exclude"),
        ({"method": "ties", "overrides": 3}, "overrides is 3"),
        ({"method": "ties", "overrides": [{"weight": 1}]}, "table with a match"),
        ({"method": "ties", "overrides": [{"match": "("}]}, "not a regular expression"),
        ({"method": "ties", "overrides": [{"match": "a{9999999999}"}]}, "not a regular expression"),
        ({"method": "ties", "overrides": [{"match": "a"}]}, "changes nothing"),
        ({"method": "ties", "overrides": [{"match": "a", "alpha": 1}]}, "unknown key 'alpha'"),
        ({"method": "ties", "overrides": [{"match": "a", "lambda_": 1}]}, "unknown key 'lambda_'"),
        ({"method": "ties", "overrides": [{"match": "a", "weight": []}]}, "weight is empty"),
        ({"method": "ties", "overrides": [{"match": "a", "weight": "1"}]}, "weight"),
        ({"method": "ties", "overrides": [{"match": "a", "weight": -1}]}, "none may be negative"),
        ({"method": "ties", "overrides": [{"match": "a", "weight": [1, -1]}]}, "may be negative"),
        ({"method": "ties", "overrides": [{"match": "a", "lambda": 1e39}]}, "lambda is"),
    ],
)
def test_bad_recipe(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MergeRecipe.from_json(content)


# Files, presets and the command line -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.toml", 'method = "ties"\nweight = [1, 3]\nlambda = 0.5\nscope = "global"\n'),
        ("r.yaml", "method: ties\nweight: [1, 3]\nlambda: 0.5\nscope: global\n"),
    ],
)
def test_recipe_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    expected = MergeRecipe("ties", weight=(1.0, 3.0), lambda_=0.5, scope="global")
    assert patchc.read_recipe(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('method = "slerp"', "method is 'slerp'"),
        ("method = 3", "method is 3"),
        ('method = "ties"\nalpha = 2', "unknown key 'alpha'"),
        ('method = "safepatching"\ndensity = 0.2', "unknown key 'density'"),
        ("density = 0.2", "unknown key 'density'"),
    ],
)
def test_bad_recipe_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        patchc.read_recipe(tmp_path / "r.toml")


def test_inputs_of_another_method(tmp_path: Path) -> None:
    paths = _write(tmp_path, *_small())
    out = tmp_path / "m.patchc"
    with pytest.raises(UsageError, match="osm is given, and ties takes tuned"):
        patchc.build(**paths, osm=paths["base"], out=out, recipe=MergeRecipe("ties"))
    for recipe in (None, Recipe()):
        with pytest.raises(UsageError, match="tuned is given, and safepatching takes se and osm"):
            patchc.build(**paths, out=out, recipe=recipe)


def test_a_value_type_is_refused(tmp_path: Path) -> None:
    paths = _write(tmp_path, *_small())
    with pytest.raises(UsageError, match="value_type is for additive values"):
        patchc.build(
            **paths, out=tmp_path / "x.patchc", recipe=MergeRecipe("ties"), value_type="bf16"
        )


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "patchc", "build", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_line(tmp_path: Path) -> None:
    paths = _write(tmp_path, *_small())
    tuned = [word for path in paths["tuned"] for word in ("--tuned", path)]
    words = ["--recipe", "ties", "--density", 0.4, "--weight", 1, "--weight", 2, "--lambda", 0.5]
    words += ["--scope", "global", "--exclude", "norm"]
    finished = _run(paths["base"], *tuned, *words, "-o", tmp_path / "cli.patchc", "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["plan"]["candidates"] == [FIRST, SECOND]
    recipe = MergeRecipe(
        "ties", density=0.4, weight=(1, 2), lambda_=0.5, scope="global", exclude=("norm",)
    )
    patchc.build(**paths, out=tmp_path / "library.patchc", recipe=recipe)
    assert (tmp_path / "cli.patchc").read_bytes() == (tmp_path / "library.patchc").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "ties", "--alpha", "2"], "--alpha is not an option of ties"),
        (["--recipe", "ties", "--top-se", "0.1"], "--top-se is not an option of ties"),
        (["--lambda", "2"], "--lambda is not an option of safepatching"),
        (["--recipe", "tise"], "recipe tise: cannot read.*ties"),
        (["--recipe", "dare", "--weight", "1"], "dare needs at least one tuned model"),
    ],
)
def test_command_line_refuses(tmp_path: Path, words: list[str], message: str) -> None:
    base = write_model(tmp_path / "base", _small()[0])
    finished = _run(base, *words, "-o", tmp_path / "m.patchc")
    assert finished.returncode == 2
    assert re.search(message, finished.stderr)
    assert "Traceback" not in finished.stderr
