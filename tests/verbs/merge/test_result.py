"""Merges of task vectors against the plain-NumPy oracle, bit for bit."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import merge_oracle as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_inputs import (
    FIRST,
    METHODS,
    NORM,
    SECOND,
    Arrays,
    read_patched,
    tuned_models,
    write_sources,
)
from numpy.typing import NDArray
from tiny_checkpoints import raw, read_model
from used_inputs import used_digest

import patchc
from patchc import MergeRecipe
from patchc.checkpoint import open_checkpoint
from patchc.errors import (
    UsageError,
)
from patchc.patching.digest import digest_checkpoint
from patchc.recipe import MergeOverride, exact_match
from patchc.runtime.runtime import Runtime


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
    paths = write_sources(folder, base, tuned, shards)
    patch = folder / "merge.patchc"
    report = patchc.build(**paths, out=patch, recipe=recipe, **how)
    patchc.apply(patch, paths["base"], out=folder / "patched")
    found = read_model(folder / "patched")
    assert set(found) == set(base)
    for name, value in base.items():
        assert found[name] == raw(expected[name].reshape(value.shape)), name
    changed = sum(
        int(np.count_nonzero(_bits(expected[name]) != _bits(value))) for name, value in base.items()
    )
    assert report.entries == changed
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
def test_a_merge_equals_the_oracle(data: st.DataObject) -> None:
    shapes = data.draw(st.lists(SHAPES, min_size=1, max_size=3))
    count = data.draw(st.integers(1, 4))
    base, tuned = tuned_models(
        {f"layers.{i}.weight": shape for i, shape in enumerate(shapes)},
        count,
        data.draw(st.sampled_from(["BF16", "F16", "F32"])),
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
    base, tuned = tuned_models(shapes, 3, levels=3, seed=3)
    sign = 1 if method == "ties" else -1
    overrides = (
        MergeOverride("weight", lambda_=-0.6),
        MergeOverride(exact_match(FIRST), weight=(0.3, sign * 1.7, 0.9), lambda_=1.25),
        MergeOverride(exact_match(SECOND), weight=sign * 0.4),
    )
    recipe = MergeRecipe(method, weight=(1.0, 0.5, 2.0), lambda_=0.8, overrides=overrides, **words)
    _check(tmp_path, base, tuned, recipe, threads=2, chunk_bits=12)
    found = read_patched(tmp_path)
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
    base, tuned = tuned_models(
        {FIRST: (7, 1171), SECOND: (4096,), NORM: (4097,)}, 3, levels=2, seed=7
    )
    recipe = MergeRecipe(method, density=0.55, scope=scope)
    changed = _check(
        tmp_path, base, tuned, recipe, threads=threads, chunk_bits=chunk_bits, shards=(2, 3)
    )
    assert changed > 1000


@pytest.mark.parametrize("tuned_dtype", ["F32", "BF16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_chunk_in_several_pieces(tmp_path: Path, method: Any, tuned_dtype: str) -> None:
    """One chunk of two pieces, and digests that do not show it."""
    base, tuned = tuned_models({FIRST: (3, 44_001)}, tuned_dtype=tuned_dtype)
    words = {} if method == "task-arithmetic" else {"density": 0.4}
    changed = _check(tmp_path, base, tuned, MergeRecipe(method, **words), chunk_bits=20)
    assert changed > 10_000
    with patchc.open_patch(tmp_path / "merge.patchc") as opened:
        inputs = opened.metadata["inputs"]
    for number in range(2):
        with Runtime(1) as runtime, open_checkpoint(tmp_path / f"tuned-{number}") as model:
            expected = digest_checkpoint(model, runtime).hex()
        if method == "dare":
            expected = used_digest(f"model-{number}", tuned[number], 0, 0.4, 1 << 20)
        assert inputs[f"model-{number}"] == expected


def test_a_global_cut_takes_equal_values_by_name_then_index(tmp_path: Path) -> None:
    """Every |τ| is 1; half of 12 entries: all four of the first name, two of the next."""
    names = ["b", "a", "c"]  # not in the order of the file
    base = {name: np.zeros(4, np.float32) for name in names}
    tuned = {name: np.ones(4, np.float32) for name in names}
    paths = write_sources(tmp_path, base, [tuned])
    recipe = MergeRecipe("magnitude", density=0.5, scope="global")
    patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe)
    patchc.apply(tmp_path / "m.patchc", paths["base"], out=tmp_path / "patched")
    found = {n: list(np.frombuffer(t.data, np.float32)) for n, t in read_patched(tmp_path).items()}
    assert found == {"a": [1, 1, 1, 1], "b": [1, 1, 0, 0], "c": [0, 0, 0, 0]}
