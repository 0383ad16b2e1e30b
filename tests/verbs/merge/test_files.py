"""The patch file of a merge: same bytes for any threads, provenance, plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge_inputs import (
    FIRST,
    METHODS,
    SECOND,
    small_models,
    tuned_models,
    write_sources,
)
from tiny_checkpoints import tree

import patchc
from patchc import MergeRecipe


def test_one_file_for_threads_layouts_and_chunk_order(tmp_path: Path) -> None:
    base, tuned = tuned_models({f"layers.{i}.weight": (5, 997) for i in range(4)}, levels=2)
    for method in METHODS:
        files = set()
        for number, (threads, shards) in enumerate([(1, (1, 1)), (3, (4, 2))]):
            folder = tmp_path / method / str(number)
            paths = write_sources(folder, base, tuned, shards)
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
    base, tuned = tuned_models({FIRST: (70, 50), SECOND: (20, 50)})
    tuned[0][SECOND] *= np.float32(1.5)
    paths = write_sources(tmp_path, base, tuned)
    first, second = MergeRecipe(method), MergeRecipe(method).with_changes(**change)
    results = {
        patchc.build(**paths, out=tmp_path / f"{i}.patchc", recipe=recipe).result_digest
        for i, recipe in enumerate((first, second))
    }
    assert len(results) == 2


def test_the_provenance_names_models_and_recipe(tmp_path: Path) -> None:
    base, tuned = small_models()
    base["count"] = np.arange(3, dtype=np.int32)
    for model in tuned:
        model["count"] = base["count"]
    recipe = MergeRecipe("ties", weight=(0.4, 0.6), exclude=("norm",))
    report = patchc.build(
        **write_sources(tmp_path, base, tuned), out=tmp_path / "m.patchc", recipe=recipe
    )
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
    base, tuned = tuned_models({FIRST: (60, 90), SECOND: (7, 9)}, 1)
    paths = write_sources(tmp_path, base, tuned)
    before = tree(tmp_path)
    arguments: dict[str, Any] = {"out": tmp_path / "m.patchc", "recipe": MergeRecipe(method)}
    dry = patchc.build(**paths, **arguments, dry_run=True)
    assert dry.dry_run
    assert tree(tmp_path) == before
    report = patchc.build(**paths, **arguments)
    assert report.plan == dry.plan
    assert 0 < report.entries <= dry.plan.selected <= dry.plan.candidate_words == 5463
