"""Builds against the plain-NumPy oracle, bit for bit; their reports and plans."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_inputs import (
    LAYER_0,
    LAYER_1,
    NORM,
    check_equal,
    expected_tensors,
    random_inputs,
    read_steps,
    small_inputs,
)
from command_line import run
from component_records import write_record
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import tree, write_file, write_model
from used_inputs import used_digest

import patchc
from patchc import Recipe
from patchc.checkpoint import open_checkpoint
from patchc.patching.digest import digest_checkpoint
from patchc.recipe import Override
from patchc.recipe.safepatching import Scope
from patchc.runtime.runtime import Runtime

SHAPES = st.one_of(
    st.sampled_from([(), (0,), (3, 0), (1,), (1, 1), (4096,), (4097,), (3, 2731), (2, 33, 70)]),
    st.lists(st.integers(1, 23), min_size=1, max_size=3).map(tuple),
)
SHARES = st.one_of(st.sampled_from([0.0, 1.0, 0.1]), st.floats(0, 1))


@settings(max_examples=60)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4),
    dtype=st.sampled_from(["BF16", "F16", "F32"]),
    tuned_in_base_dtype=st.booleans(),
    levels=st.sampled_from([None, 1, 3]),
    recipe=st.builds(
        Recipe,
        retain=SHARES,
        top_se=SHARES,
        top_osm=SHARES,
        alpha=st.floats(-20, 20, width=32),
        beta=st.sampled_from([0.0, 1.0, 16.0, 0.1]),
        seed=st.integers(0, 2**64 - 1),
    ),
    layout=st.fixed_dictionaries({k: st.integers(1, 3) for k in ("base", "tuned", "scores")}),
    threads=st.integers(1, 3),
    chunk_bits=st.sampled_from([12, 13, 20]),
    data_seed=st.integers(0, 1000),
)
def test_a_build_equals_the_oracle(
    shapes: list[tuple[int, ...]],
    dtype: str,
    tuned_in_base_dtype: bool,
    levels: int | None,
    recipe: Recipe,
    layout: dict[str, int],
    threads: int,
    chunk_bits: int,
    data_seed: int,
) -> None:
    named = {f"layers.{i}.weight": shape for i, shape in enumerate(shapes)}
    tuned_dtype = dtype if tuned_in_base_dtype else "F32"
    inputs = random_inputs(named, dtype, tuned_dtype, levels, data_seed)
    layout = {part: min(count, len(shapes)) for part, count in layout.items()}
    with tempfile.TemporaryDirectory() as folder:
        paths = inputs.write(Path(folder), layout)
        out = Path(folder) / "fix.patchc"
        report = patchc.build(
            **paths, out=out, recipe=recipe, threads=threads, chunk_bits=chunk_bits
        )
        changed = check_equal(inputs, recipe, out)
        assert report.entries == changed
        assert report.size == out.stat().st_size


@pytest.mark.parametrize("chunk_bits", [12, 13, 14, 20])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_ties_across_chunk_borders_equal_the_oracle(
    tmp_path: Path, chunk_bits: int, threads: int
) -> None:
    """Few score values over many chunks: the last place falls into a run through all of them."""
    inputs = random_inputs({LAYER_0: (7, 4099)}, levels=3, seed=9)
    recipe = Recipe(retain=0.8, top_se=0.4, top_osm=0.35, seed=5)
    out = tmp_path / "fix.patchc"
    paths = inputs.write(tmp_path)
    patchc.build(**paths, out=out, recipe=recipe, threads=threads, chunk_bits=chunk_bits)
    assert check_equal(inputs, recipe, out) > 1000


@pytest.mark.parametrize("scope", ["tensor", "row"])
@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("tuned_dtype", ["F32", "BF16"])
def test_a_chunk_in_several_pieces(
    tmp_path: Path, tuned_dtype: str, levels: int | None, scope: Scope
) -> None:
    """One chunk of two pieces, and digests that do not show it."""
    inputs = random_inputs({LAYER_0: (3, 44_001)}, tuned_dtype=tuned_dtype, levels=levels)
    recipe = Recipe(retain=0.7, top_se=0.3, top_osm=0.25, seed=5, scope=scope)
    out = tmp_path / "fix.patchc"
    paths = inputs.write(tmp_path)
    patchc.build(**paths, out=out, recipe=recipe, chunk_bits=20)
    assert check_equal(inputs, recipe, out) > 10_000
    with patchc.open_patch(out) as opened:
        recorded = opened.metadata["inputs"]
    assert recorded == {
        f"{part} {kind}": used_digest(part, values[part], 5, 0.7, 1 << 20)
        for part in ("se", "osm")
        for kind, values in (("tuned", inputs.tuned), ("scores", inputs.scores))
    }


@pytest.mark.parametrize("change", [{"retain": 1}, {"rank_among": "all"}])
def test_where_all_entries_are_ranked_the_digests_are_those_of_the_models(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    paths, out = small_inputs().write(tmp_path), tmp_path / "fix.patchc"
    patchc.build(**paths, out=out, recipe=Recipe(**change))
    with patchc.open_patch(out) as opened:
        recorded = opened.metadata["inputs"]
    for part in ("se", "osm"):
        with Runtime(1) as runtime, open_checkpoint(paths[part], "scores") as scores:
            assert recorded[f"{part} scores"] == digest_checkpoint(scores, runtime).hex()


def test_one_run_of_equal_scores_is_cut_inside_a_later_chunk(tmp_path: Path) -> None:
    """All scores tie and everything is retained: the set is exactly the first k indices."""
    inputs = random_inputs({LAYER_0: (3, 4096)}, levels=1)
    inputs.tuned["se"][LAYER_0] = inputs.base[LAYER_0].astype(np.float32) + np.float32(1)
    recipe = Recipe(retain=1, top_se=0.5, top_osm=0, alpha=1)
    out = tmp_path / "fix.patchc"
    patchc.build(**inputs.write(tmp_path), out=out, recipe=recipe, chunk_bits=12)
    assert list(read_steps(out, inputs.base)[LAYER_0]) == list(range(6144))


def test_one_file_for_threads_and_layouts(tmp_path: Path) -> None:
    names = {f"model.layers.{i}.weight": (5, 997) for i in range(5)}
    inputs = random_inputs(names, levels=50)
    recipe = Recipe(seed=3)
    files = set()
    for number, (threads, shards) in enumerate([(1, 1), (2, 1), (7, 3), (1, 5)]):
        folder = tmp_path / str(number)
        paths = inputs.write(folder, {"base": shards, "tuned": 6 - shards, "scores": shards})
        out = folder / "fix.patchc"
        patchc.build(**paths, out=out, recipe=recipe, threads=threads, chunk_bits=12)
        files.add(out.read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"retain": 0.31}, {"alpha": 7.9}, {"top_se": 0.2}])
def test_every_parameter_matters(tmp_path: Path, change: dict[str, float]) -> None:
    inputs = random_inputs({LAYER_0: (70, 50)})
    paths = inputs.write(tmp_path)
    patchc.build(**paths, out=tmp_path / "a.patchc")
    patchc.build(**paths, out=tmp_path / "b.patchc", recipe=replace(Recipe(), **change))
    first, second = (read_steps(tmp_path / f"{x}.patchc", inputs.base) for x in "ab")
    assert first != second


def test_overrides_with_scales_of_either_sign(tmp_path: Path) -> None:
    inputs = small_inputs()
    overrides = (Override("layers", alpha=-2.5, beta=3), Override(LAYER_1, beta=-0.75))
    recipe = Recipe(retain=0.6, top_se=0.4, top_osm=0.4, overrides=overrides)
    patchc.build(**inputs.write(tmp_path), out=tmp_path / "fix.patchc", recipe=recipe)
    assert check_equal(inputs, recipe, tmp_path / "fix.patchc") > 0


@pytest.mark.parametrize(
    ("file", "options", "unfitted"),
    [
        ("", "", "α 5 and β 4.5 are defaults"),
        ("", "--alpha 5", "β 4.5 is a default"),
        ("", "--beta 4.5", "α 5 is a default"),
        ("", "--alpha 1 --beta 2", None),
        ("", "--sets se", "α 5 is a default"),
        ("", "--sets se --beta 2", "α 5 is a default"),
        ("", "--sets se --alpha 2", None),
        ("", "--sets osm", "β 4.5 is a default"),
        ("", "--sets osm --beta 2", None),
        ("top_se = 0.1", "", "α 5 and β 4.5 are defaults"),
        ("alpha = 5.0\nbeta = 4.5", "", None),
        ("alpha = 3", "", "β 4.5 is a default"),
        ("alpha = 3", "--beta 2", None),
        ("[[overrides]]\nmatch = 'layers'\nalpha = 1\nbeta = 1", "", None),
        ("[[overrides]]\nmatch = 'layers'\nbeta = 1", "", "α 5 is a default"),
        ("[[overrides]]\nmatch = 'layers'\ntop_se = 0.1", "", "α 5 and β 4.5 are defaults"),
    ],
)
def test_a_build_says_which_scales_are_unfitted(
    tmp_path: Path, file: str, options: str, unfitted: str | None
) -> None:
    paths = small_inputs().write(tmp_path)
    for part in ("se", "osm"):
        write_record(paths[part], paths["base"], part)
    words: list[object] = ["--se", paths["se"], "--osm", paths["osm"], *options.split()]
    if file:
        (tmp_path / "recipe.toml").write_text(file)
        words += ["--recipe", tmp_path / "recipe.toml"]
    out = tmp_path / "fix.patchc"
    code, text, err = run("build", paths["base"], *words, "-o", out, "--dry-run", "--json")
    assert code == 0
    assert json.loads(text)["dry_run"]
    if unfitted is None:
        assert err == ""
    else:
        assert err.startswith(f"patchc: warning: {unfitted}, not fitted to these models")
        assert "`patchc fit`" in err
        assert len(err.splitlines()) == 1


def test_a_merge_has_no_scales_to_fit(tmp_path: Path) -> None:
    paths = small_inputs().write(tmp_path)
    words = ["--recipe", "ties", "--tuned", paths["se"], "-o", tmp_path / "x", "--dry-run"]
    assert run("build", paths["base"], *words)[::2] == (0, "")


def test_scores_named_apart_and_single_files(tmp_path: Path) -> None:
    inputs = small_inputs()
    base = write_file(tmp_path / "base.safetensors", inputs.base)
    named: dict[str, Path] = {}
    for part in ("se", "osm"):
        named[part] = write_file(tmp_path / f"{part}.safetensors", inputs.tuned[part])
        scores = write_file(tmp_path / f"{part}-scores.safetensors", inputs.scores[part])
        named[f"{part}_scores"] = scores
    out = tmp_path / "fix.patchc"
    patchc.build(base, **named, out=out)
    assert check_equal(inputs, Recipe(), out) > 0


def test_include_and_exclude_choose_the_candidates(tmp_path: Path) -> None:
    inputs = small_inputs()
    paths = inputs.write(tmp_path)
    recipe = Recipe(include=("layers",), exclude=(r"\.1\.",))
    report = patchc.build(**paths, out=tmp_path / "fix.patchc", recipe=recipe)
    assert report.plan.candidates == (LAYER_0,)
    for part in ("se", "osm"):
        del inputs.scores[part][LAYER_1]
    assert check_equal(inputs, recipe, tmp_path / "fix.patchc") > 0


def test_a_tensor_with_scores_from_one_component_takes_no_part(tmp_path: Path) -> None:
    inputs = small_inputs()
    del inputs.scores["osm"][LAYER_1]
    report = patchc.build(**inputs.write(tmp_path), out=tmp_path / "fix.patchc")
    assert report.plan.candidates == (LAYER_0,)
    assert check_equal(inputs, Recipe(), tmp_path / "fix.patchc") > 0


def test_the_provenance_names_inputs_and_recipe(tmp_path: Path) -> None:
    recipe = Recipe(retain=0.4, seed=2**64 - 1, exclude=("nothing",))
    patchc.build(**small_inputs().write(tmp_path), out=tmp_path / "fix.patchc", recipe=recipe)
    with patchc.open_patch(tmp_path / "fix.patchc") as opened:
        metadata = opened.metadata
    assert metadata["kind"] == "build"
    assert metadata["recipe"]["method"] == "safepatching"
    assert metadata["tool"] == {"name": "patchc", "version": patchc.__version__}
    assert Recipe.from_json(metadata["recipe"]) == recipe
    digests = metadata["inputs"]
    assert sorted(digests) == ["osm scores", "osm tuned", "se scores", "se tuned"]
    assert len(set(digests.values())) == 4


def test_applying_a_build_gives_the_merged_model(tmp_path: Path) -> None:
    inputs = small_inputs()
    paths = inputs.write(tmp_path, {"base": 2})
    patchc.build(**paths, out=tmp_path / "fix.patchc")
    patchc.apply(tmp_path / "fix.patchc", paths["base"], out=tmp_path / "patched")
    merged = inputs.base | {n: t.result for n, t in expected_tensors(inputs, Recipe()).items()}
    reshaped = {n: v.reshape(inputs.base[n].shape) for n, v in merged.items()}
    expected = write_model(tmp_path / "expected", reshaped, shards=2)
    assert tree(tmp_path / "patched") == tree(expected)


@pytest.mark.parametrize("retain", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1,), (3, 2), (60, 90)])
def test_dry_run_writes_nothing_and_bounds_the_truth(
    tmp_path: Path, retain: float, shape: tuple[int, ...]
) -> None:
    names = {f"model.layers.{i}.weight": shape for i in range(3)}
    paths = random_inputs(names | {NORM: (10,)}, unscored=(NORM,)).write(tmp_path)
    before = tree(tmp_path)
    # Scales this small give steps of a few units, which the expected size is stated for.
    recipe = Recipe(retain=retain, top_se=1, top_osm=0.5, alpha=0.02, beta=0.02)
    arguments: dict[str, Any] = {**paths, "out": tmp_path / "fix.patchc", "recipe": recipe}
    dry = patchc.build(**arguments, dry_run=True)
    assert (dry.dry_run, dry.root, dry.size, dry.result_digest) == (True, "", 0, None)
    assert tree(tmp_path) == before
    report = patchc.build(**arguments)
    assert report.plan == dry.plan
    with patchc.open_patch(tmp_path / "fix.patchc") as opened:
        statistics = opened.metadata["statistics"].values()
    assert sum(s["se"] + s["osm"] - s["overlap"] for s in statistics) <= dry.plan.selected
    assert report.entries <= dry.plan.selected <= dry.plan.candidate_words
    assert report.size <= dry.plan.patch_bytes
    assert dry.plan.candidates == tuple(names)
    assert dry.plan.candidate_words == 3 * int(np.prod(shape))
    assert dry.plan.model_words == report.words == dry.plan.candidate_words + 10


@pytest.mark.parametrize("scale", [0.02, 1.0])
def test_the_expected_size_counts_the_finer_steps_of_fp32(tmp_path: Path, scale: float) -> None:
    paths = random_inputs({LAYER_0: (100, 900)}, "F32").write(tmp_path)
    recipe = Recipe(retain=1, alpha=scale, beta=scale)
    report = patchc.build(**paths, out=tmp_path / "fix.patchc", recipe=recipe)
    assert 0.7 < report.size / report.plan.patch_bytes < 1.4


def test_the_plan_counts_how_often_scores_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; in global scope twice where there is no room for the marks of all tensors."""
    monkeypatch.setattr("patchc.selection.topk.search._MOST_IN_BITMASKS", 300)
    paths = random_inputs({LAYER_0: (10, 20), LAYER_1: (10, 20)}).write(tmp_path)
    read = {}
    for scope in ("tensor", "global", "row"):
        recipe = Recipe(scope=scope)  # type: ignore[arg-type]
        dry = patchc.build(**paths, out=tmp_path / "x", recipe=recipe, dry_run=True)
        read[scope] = dry.plan.read_bytes
    assert read["tensor"] == read["row"]
    assert read["global"] - read["row"] == 2 * 400 * 4
