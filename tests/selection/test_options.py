"""Scope, ranking, kinds of scores, set operations, rescale and overrides, against the oracle."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from build_inputs import (
    LAYER_0,
    LAYER_1,
    check_equal,
    expected_tensors,
    random_inputs,
    read_steps,
    small_inputs,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import patchc
from patchc import Recipe
from patchc.cli.main import app
from patchc.errors import MismatchError, NumericError, UnsupportedInputError, UsageError
from patchc.recipe import Override
from patchc.recipe.safepatching import RANKED_AMONG, SCOPES, SET_OPERATIONS
from patchc.selection.candidates import find_transposed, is_decoder_linear, row_length

SHAPES = st.one_of(
    st.sampled_from([(), (0,), (3, 0), (0, 3), (5000,), (3, 2731), (2, 33, 70), (1, 4099)]),
    st.lists(st.integers(1, 23), min_size=1, max_size=3).map(tuple),
)
SHARES = st.one_of(st.sampled_from([0.0, 1.0, 0.1]), st.floats(0, 1))
OVERRIDES = st.builds(
    Override,
    match=st.sampled_from(["weight", r"\.0\.", r"layers\.[12]"]),
    retain=st.none() | SHARES,
    alpha=st.none() | st.floats(-4, 4, width=32),
    beta=st.just(3.0),
)
SHARE_OVERRIDES = st.builds(Override, match=st.just(r"\.[02]\."), top_se=SHARES, top_osm=SHARES)


@settings(max_examples=120)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4),
    dtype=st.sampled_from(["F32", "BF16", "F16"]),
    levels=st.sampled_from([None, 1, 3]),
    recipe=st.builds(
        Recipe,
        retain=SHARES,
        top_se=SHARES,
        top_osm=SHARES,
        alpha=st.floats(-4, 4, width=32),
        beta=st.sampled_from([0.0, 1.0, 0.1]),
        seed=st.integers(0, 2**64 - 1),
        scope=st.sampled_from(SCOPES),
        rank_among=st.sampled_from(RANKED_AMONG),
        sets=st.sampled_from(SET_OPERATIONS),
        rescale=st.booleans(),
        least_step=st.sampled_from([1, 1, 2, 5, 20000, 2**31 - 1]),
        overrides=st.lists(OVERRIDES, max_size=2),
    ),
    share_override=st.none() | SHARE_OVERRIDES,
    threads=st.integers(1, 3),
    chunk_bits=st.sampled_from([12, 20]),
    data_seed=st.integers(0, 1000),
)
def test_the_selection_equals_the_oracle(
    shapes: list[tuple[int, ...]],
    dtype: str,
    levels: int | None,
    recipe: Recipe,
    share_override: Override | None,
    threads: int,
    chunk_bits: int,
    data_seed: int,
) -> None:
    named = {f"layers.{i}.weight": shape for i, shape in enumerate(shapes)}
    if share_override and recipe.scope != "global":
        recipe = replace(recipe, overrides=(*recipe.overrides, share_override))
    inputs = random_inputs(named, dtype, "F32", levels, data_seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "fix.patchc"
        paths = inputs.write(Path(folder))
        if recipe.sets in ("se", "osm"):
            del paths["osm" if recipe.sets == "se" else "se"]
        named_in_vain = [
            one for one in recipe.overrides if not any(re.search(one.match, name) for name in named)
        ]
        if named_in_vain:
            with pytest.raises(UsageError, match="matches none"):
                patchc.build(**paths, out=out, recipe=recipe)
            return
        try:
            report = patchc.build(
                **paths, out=out, recipe=recipe, threads=threads, chunk_bits=chunk_bits
            )
        except NumericError:
            with pytest.raises(OverflowError):
                expected_tensors(inputs, recipe)
            return
        check_equal(inputs, recipe, out)
        assert report.plan.selected >= sum(
            int((tensor.applied["se"] | tensor.applied["osm"]).sum())
            for tensor in expected_tensors(inputs, recipe).values()
        )


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("rank_among", RANKED_AMONG)
@pytest.mark.parametrize("threads", [1, 4])
def test_ties_over_many_chunks_equal_the_oracle(
    tmp_path: Path, scope: str, rank_among: str, threads: int
) -> None:
    shapes = {LAYER_1: (7, 4099), LAYER_0: (9, 1031), "model.layers.10.weight": (3, 5000)}
    inputs = random_inputs(shapes, levels=3, seed=9)
    values = {"scope": scope, "rank_among": rank_among}
    recipe = Recipe(retain=0.8, top_se=0.41, top_osm=0.35, seed=5, **values)  # type: ignore[arg-type]
    out = tmp_path / "fix.patchc"
    paths = inputs.write(tmp_path, {"base": 3, "tuned": 2, "scores": 3})
    patchc.build(**paths, out=out, recipe=recipe, threads=threads, chunk_bits=12)
    assert check_equal(inputs, recipe, out) > 1000


def test_a_global_cut_ends_in_the_tensor_that_sorts_first_by_bytes(tmp_path: Path) -> None:
    """Everything ties and all is retained: the first entries of the first names are taken."""
    names = ["model.layers.2.weight", "model.layers.10.weight"]
    inputs = random_inputs(dict.fromkeys(names, (1, 5000)), levels=1)
    for name in names:
        inputs.tuned["se"][name] = inputs.base[name].astype(np.float32) + np.float32(1)
    recipe = Recipe(retain=1, top_se=0.6, sets="se", alpha=1, scope="global")
    out = tmp_path / "fix.patchc"
    paths = inputs.write(tmp_path)
    patchc.build(paths["base"], se=paths["se"], out=out, recipe=recipe, chunk_bits=12)
    steps = read_steps(out, inputs.base)
    assert list(steps["model.layers.10.weight"]) == list(range(5000))
    assert list(steps["model.layers.2.weight"]) == list(range(1000))


def test_a_row_is_a_run_of_the_last_dimension(tmp_path: Path) -> None:
    """One entry of each of six rows of three stacked experts, whatever the rows' scores."""
    name = "model.layers.0.mlp.experts.gate_up_proj"
    inputs = random_inputs({name: (3, 2, 5)}, "F32")
    scores = np.tile(np.array([1, 5, 2, 3, 4], np.float32), (3, 2, 1))
    inputs.scores["se"][name] = scores * np.arange(1, 7, dtype=np.float32).reshape(3, 2, 1)
    recipe = Recipe(retain=1, top_se=0.2, sets="se", scope="row")
    paths = inputs.write(tmp_path)
    patchc.build(paths["base"], se=paths["se"], out=tmp_path / "x.patchc", recipe=recipe)
    assert list(read_steps(tmp_path / "x.patchc", inputs.base)[name]) == [1, 6, 11, 16, 21, 26]


@pytest.mark.parametrize(("sets", "applied"), [("difference", False), ("intersection", True)])
def test_all_ranks_and_combines_before_retention(tmp_path: Path, sets: str, applied: bool) -> None:
    """Both top sets hold everything: they have no difference, whatever is retained."""
    values = {"rank_among": "all", "sets": sets}
    recipe = Recipe(retain=0.5, top_se=1, top_osm=1, **values)  # type: ignore[arg-type]
    inputs = random_inputs({LAYER_0: (6, 100)})
    patchc.build(**inputs.write(tmp_path), out=tmp_path / "x.patchc", recipe=recipe)
    assert bool(read_steps(tmp_path / "x.patchc", inputs.base)[LAYER_0]) is applied
    counts = patchc.inspect(tmp_path / "x.patchc").metadata["statistics"][LAYER_0]
    assert (counts["se"], counts["osm"], counts["overlap"]) == (600, 600, 600)
    for part in ("se applied", "osm applied"):
        assert 200 < counts[part] < 400 if applied else counts[part] == 0


@pytest.mark.parametrize("scope", SCOPES)
def test_a_score_that_is_no_score_is_refused_in_every_scope(tmp_path: Path, scope: str) -> None:
    inputs = random_inputs({LAYER_0: (3, 5000)})
    inputs.scores["osm"][LAYER_0][2, 17] = np.nan
    recipe = Recipe(scope=scope)  # type: ignore[arg-type]
    out = tmp_path / "fix.patchc"
    with pytest.raises(NumericError, match=f"osm.*{LAYER_0}.*flat index 10017 is nan"):
        patchc.build(**inputs.write(tmp_path), out=out, recipe=recipe, chunk_bits=12)
    assert not out.exists()


@pytest.mark.parametrize("score", ["delta", "base-weight", "base-delta"])
def test_scores_of_another_kind_lie_in_files_of_their_own(tmp_path: Path, score: str) -> None:
    inputs = small_inputs()
    inputs.stem = f"scores-{score}"
    paths = inputs.write(tmp_path)
    recipe = Recipe(score=score)  # type: ignore[arg-type]
    patchc.build(**paths, out=tmp_path / "fix.patchc", recipe=recipe)
    assert check_equal(inputs, recipe, tmp_path / "fix.patchc") > 0
    with pytest.raises(MismatchError, match=r"no scores.safetensors.*--score weight"):
        patchc.build(**paths, out=tmp_path / "other.patchc")


@pytest.mark.parametrize("sets", ["difference", "intersection", "union", "osm"])
def test_a_component_that_is_needed_is_asked_for(tmp_path: Path, sets: str) -> None:
    paths = small_inputs().write(tmp_path)
    recipe = Recipe(sets=sets)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the osm model is missing.*--osm"):
        patchc.build(paths["base"], se=paths["se"], out=tmp_path / "x.patchc", recipe=recipe)


def test_an_override_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    recipe = Recipe(overrides=(Override("up_proj", alpha=1), Override("uq_proj", alpha=1)))
    with pytest.raises(UsageError, match="'uq_proj' matches none of the 2 tensors"):
        patchc.build(**small_inputs().write(tmp_path), out=tmp_path / "x.patchc", recipe=recipe)


def test_rows_of_transposed_matrices_are_refused(tmp_path: Path) -> None:
    inputs = random_inputs({"h.0.attn.c_attn.weight": (4, 12)})
    paths = inputs.write(tmp_path)
    with pytest.raises(UnsupportedInputError, match=r"c_attn.*input × output"):
        patchc.build(**paths, out=tmp_path / "x.patchc", recipe=Recipe(scope="row"))
    patchc.build(**paths, out=tmp_path / "x.patchc", recipe=Recipe(scope="global"))


def test_layouts_are_told_apart_by_shape() -> None:
    gate_up, down = "layers.0.mlp.experts.gate_up_proj", "layers.0.mlp.experts.down_proj"
    assert find_transposed({gate_up: (8, 64, 16), down: (8, 16, 32)}) is None
    assert find_transposed({gate_up: (8, 16, 64), down: (8, 32, 16)}) == gate_up
    assert find_transposed({"h.0.mlp.c_fc.weight": (64, 16)}) is None
    assert find_transposed({"h.0.mlp.c_fc.weight": (16, 64)}) == "h.0.mlp.c_fc.weight"
    assert row_length((8, 64, 16)) == row_length((16,)) == 16
    assert row_length(()) == row_length((3, 0)) == 1


@pytest.mark.parametrize(
    ("name", "shape", "linear"),
    [
        ("model.layers.0.self_attn.qkv_proj.weight", (96, 32), True),
        ("transformer.h.11.attn.c_attn.weight", (32, 96), True),
        ("gpt_neox.layers.3.attention.query_key_value.weight", (96, 32), True),
        ("model.layers.0.block_sparse_moe.experts.7.w1.weight", (64, 32), True),
        ("model.layers.0.mlp.experts.gate_up_proj", (8, 64, 32), True),
        ("model.layers.0.mlp.experts.down_proj.weight", (8, 32, 32), True),
        ("model.layers.0.mlp.switch_experts.up_proj", (8, 32, 32), True),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", (8, 64), False),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", (1, 8, 64), False),
        ("model.layers.0.mixer.conv1d.weight", (64, 1, 4), False),
        ("model.layers.0.input_layernorm.weight", (32,), False),
        ("model.layers.0.self_attn.q_norm.weight", (2, 32), False),
        ("model.embed_tokens.weight", (100, 32), False),
        ("lm_head.weight", (100, 32), False),
        ("model.vision_tower.layers.0.fc1.weight", (64, 32), False),
        ("model.mm_projector.0.weight", (64, 32), False),
        ("multi_modal_projector.layers.0.weight", (64, 32), False),
        ("model.layers.61.shared_head.head.weight", (100, 32), False),
        (
            "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            (32, 8),
            False,
        ),
        ("model.layers.0.block_sparse_moe.input_linear.weight", (8, 64, 32), True),
        ("model.layers.0.block_sparse_moe.output_linear.weight", (8, 32, 32), True),
        ("transformer.encoder.layers.0.self_attention.dense.weight", (32, 32), True),
        ("model.encoder.layers.0.self_attn.q_proj.weight", (32, 32), False),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", (32, 32), False),
    ],
)
def test_decoder_linear_layers_are_found_by_name(
    name: str, shape: tuple[int, ...], linear: bool
) -> None:
    assert is_decoder_linear(name, shape) is linear


def test_every_option_on_the_command_line(tmp_path: Path) -> None:
    inputs = small_inputs()
    paths = inputs.write(tmp_path)
    options = (
        "--scope row --rank-among all --sets union --rescale --least-step 2 --retain 0.6 "
        "--top-se 0.4 --top-osm 0.3 --alpha 2 --beta 3 --seed 9"
    )
    out = tmp_path / "fix.patchc"
    command = ["build", paths["base"], "--se", paths["se"], "--osm", paths["osm"], "-o", out]
    result = CliRunner().invoke(app, [*map(str, command), *options.split()])
    assert result.exit_code == 0, result.output
    recipe = Recipe(
        retain=0.6,
        top_se=0.4,
        top_osm=0.3,
        alpha=2,
        beta=3,
        seed=9,
        scope="row",
        rank_among="all",
        sets="union",
        rescale=True,
        least_step=2,
    )
    with patchc.open_patch(out) as opened:
        assert Recipe.from_json(opened.metadata["recipe"]) == recipe
    assert check_equal(inputs, recipe, out) > 0


def test_one_component_on_the_command_line(tmp_path: Path) -> None:
    paths = small_inputs().write(tmp_path)
    command = ["build", paths["base"], "--osm", paths["osm"], "-o", tmp_path / "osm.patchc"]
    alone = CliRunner().invoke(app, [*map(str, command), "--sets", "osm"])
    assert alone.exit_code == 0, alone.output
    both = CliRunner().invoke(app, list(map(str, command)))
    assert both.exit_code != 0
    assert "the se model is missing" in both.output
