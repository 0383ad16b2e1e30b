"""Models and values that a merge refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge_inputs import (
    FIRST,
    METHODS,
    NORM,
    SECOND,
    merge_one,
    small_models,
    tuned_models,
    write_sources,
)
from tiny_checkpoints import changer, tree, write_model

import patchc
from patchc import MergeRecipe
from patchc.errors import (
    CheckpointError,
    MismatchError,
    NumericError,
    OutputError,
    PatchcError,
    UnsupportedInputError,
    UsageError,
)

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
    base, tuned = small_models()
    change(base, tuned)
    paths = write_sources(tmp_path, base, tuned)
    before = tree(tmp_path)
    with pytest.raises(error, match=message):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=recipe, dry_run=dry_run)
    assert tree(tmp_path) == before


def test_what_is_excluded_may_differ(tmp_path: Path) -> None:
    base, tuned = small_models()
    base["n"], tuned[0]["n"] = np.zeros(3, np.int32), np.ones(3, np.int32)
    tuned[1]["extra.head"] = np.ones(3, np.float32)
    recipe = MergeRecipe("ties", exclude=("^n$", "extra"))
    report = patchc.build(
        **write_sources(tmp_path, base, tuned), out=tmp_path / "m.patchc", recipe=recipe
    )
    assert report.plan.candidates == (FIRST, SECOND, NORM)


def test_one_tuned_model_needs_no_list(tmp_path: Path) -> None:
    paths = write_sources(tmp_path, *tuned_models({FIRST: (6, 10)}, 1))
    recipe = MergeRecipe("dare")
    files = set()
    for number, tuned in enumerate((paths["tuned"], paths["tuned"][0], str(paths["tuned"][0]))):
        out = tmp_path / f"{number}.patchc"
        patchc.build(paths["base"], tuned=tuned, out=out, recipe=recipe)
        files.add(out.read_bytes())
    assert len(files) == 1


def test_a_merge_of_no_tuned_model_is_refused(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", small_models()[0])
    with pytest.raises(UsageError, match="at least one tuned model"):
        patchc.build(base, tuned=[], out=tmp_path / "m.patchc", recipe=MergeRecipe("ties"))


@pytest.mark.parametrize("out", ["base", "tuned-1/m.patchc"])
def test_an_output_inside_an_input_is_refused(tmp_path: Path, out: str) -> None:
    paths = write_sources(tmp_path, *small_models())
    with pytest.raises(OutputError):
        patchc.build(**paths, out=tmp_path / out, recipe=MergeRecipe("dare"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["base", "tuned"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(
    tmp_path: Path, method: Any, where: str, value: float
) -> None:
    base, tuned = tuned_models({FIRST: (2, 4100)})
    (base if where == "base" else tuned[1])[FIRST][1, 4000] = value
    paths = write_sources(tmp_path, base, tuned)
    before = tree(tmp_path)
    with pytest.raises(NumericError, match=f"{FIRST}.*flat index 8100"):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=MergeRecipe(method), chunk_bits=12)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("method", METHODS)
def test_the_first_model_at_fault_is_named_wherever_it_is_in_the_chunk(
    tmp_path: Path, method: Any
) -> None:
    """The second model's fault lies in an earlier piece of the same chunk."""
    base, tuned = tuned_models({FIRST: (10,), SECOND: (150_000,)})
    tuned[0][SECOND][140_001] = tuned[1][SECOND][77] = np.nan
    paths = write_sources(tmp_path, base, tuned)
    with pytest.raises(NumericError, match=r"flat index 140001: .*tuned-0"):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=MergeRecipe(method))


@pytest.mark.parametrize("method", METHODS)
def test_a_difference_or_a_sum_that_overflows(tmp_path: Path, method: Any) -> None:
    largest = float(np.finfo(np.float32).max)
    recipe = MergeRecipe(method, **({} if method == "task-arithmetic" else {"density": 1}))
    with pytest.raises(NumericError, match=r"'w', flat index 1.*difference"):
        merge_one(tmp_path / "a", [0, -largest], [[1, largest]], recipe)
    with pytest.raises(NumericError, match=r"'w', flat index 1:.*too large"):
        merge_one(tmp_path / "b", [0, 0], [[1, largest]] * 2, replace(recipe, lambda_=2.0))


def test_infinite_terms_are_refused_though_they_cancel(tmp_path: Path) -> None:
    recipe = MergeRecipe("ties", density=1, weight=2)
    with pytest.raises(NumericError, match=r"'w', flat index 1:.*too large"):
        merge_one(tmp_path, [0, 0], [[1, 3e38], [1, -3e38]], recipe)


def test_overflow_of_a_small_float(tmp_path: Path) -> None:
    base = {FIRST: np.full(5, 6e4, np.float16)}
    tuned = {FIRST: np.full(5, 7e4, np.float32)}
    paths = write_sources(tmp_path, base, [tuned])
    with pytest.raises(NumericError, match=f"{FIRST}.*flat index 0.*too large"):
        patchc.build(**paths, out=tmp_path / "m.patchc", recipe=MergeRecipe("task-arithmetic"))


def test_a_model_that_changes_during_the_run(tmp_path: Path) -> None:
    base, tuned = tuned_models({f"layers.{i}.weight": (50, 100) for i in range(6)})
    paths = write_sources(tmp_path, base, tuned)
    weights = paths["tuned"][1] / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"tuned-1/.*was changed while in use"):
        patchc.build(
            **paths,
            out=tmp_path / "m.patchc",
            recipe=MergeRecipe("ties"),
            progress=changer(weights),
        )
    assert not (tmp_path / "m.patchc").exists()
