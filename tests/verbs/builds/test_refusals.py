"""Inputs that a build refuses, and values that are not finite."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_inputs import (
    LAYER_0,
    LAYER_1,
    Inputs,
    check_equal,
    expected_tensors,
    random_inputs,
    read_steps,
    small_inputs,
)
from tiny_checkpoints import Raw, changer, tree

import patchc
from patchc import Recipe
from patchc.errors import (
    CheckpointError,
    MismatchError,
    NumericError,
    OutputError,
    PatchcError,
    UnsupportedInputError,
    UsageError,
)


def _no_change(_inputs: Inputs) -> None:
    pass


def _unknown_scores(inputs: Inputs) -> None:
    inputs.scores["se"]["ghost.weight"] = np.ones(3, np.float32)


def _scores_of_another_shape(inputs: Inputs) -> None:
    inputs.scores["osm"][LAYER_0] = np.ones((10, 6), np.float32)


def _scores_of_another_dtype(inputs: Inputs) -> None:
    inputs.scores["osm"][LAYER_0] = np.ones((6, 10), np.float16)


def _tuned_tensor_missing(inputs: Inputs) -> None:
    del inputs.tuned["se"][LAYER_1]


def _tuned_of_another_shape(inputs: Inputs) -> None:
    inputs.tuned["se"][LAYER_1] = np.zeros((3, 20), np.float32)


def _tuned_of_doubles(inputs: Inputs) -> None:
    inputs.tuned["se"][LAYER_1] = np.zeros((6, 10), np.float64)


def _base_of_doubles(inputs: Inputs) -> None:
    inputs.base[LAYER_1] = np.zeros((6, 10), np.float64)


def _no_scores_at_all(inputs: Inputs) -> None:
    inputs.scores["osm"].clear()


def _quantised_tensor(inputs: Inputs) -> None:
    inputs.base["model.layers.0.mlp.up_proj.qweight"] = np.zeros(4, np.int32)


def _adapter_tensor(inputs: Inputs) -> None:
    inputs.base["layers.0.lora_A.weight"] = np.zeros(4, np.float32)


Change = Callable[[Inputs], None]
REFUSED: dict[str, tuple[Change, Recipe, type[PatchcError], str]] = {
    "unknown scores": (_unknown_scores, Recipe(), MismatchError, "ghost.weight"),
    "scores shape": (_scores_of_another_shape, Recipe(), MismatchError, r"\[10, 6\]"),
    "scores dtype": (_scores_of_another_dtype, Recipe(), MismatchError, "scores are F32"),
    "tuned missing": (_tuned_tensor_missing, Recipe(), MismatchError, LAYER_1),
    "tuned shape": (_tuned_of_another_shape, Recipe(), MismatchError, r"\[3, 20\]"),
    "tuned dtype": (_tuned_of_doubles, Recipe(), MismatchError, "tuned weights must be"),
    "base dtype": (_base_of_doubles, Recipe(), UnsupportedInputError, "is F64"),
    "included without scores": (
        _no_change,
        Recipe(include=("norm",)),
        MismatchError,
        "is included and has no scores",
    ),
    "no scores": (_no_scores_at_all, Recipe(), MismatchError, "nothing to build"),
    "all excluded": (_no_change, Recipe(exclude=("",)), MismatchError, "nothing to build"),
    "none included": (_no_change, Recipe(include=("zzz",)), MismatchError, "nothing to build"),
    "quantised": (_quantised_tensor, Recipe(), UnsupportedInputError, "GPTQ or AWQ"),
    "adapter": (_adapter_tensor, Recipe(), UnsupportedInputError, "LoRA adapter"),
}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_written(tmp_path: Path, case: str, dry_run: bool) -> None:
    change, recipe, error, message = REFUSED[case]
    inputs = small_inputs()
    change(inputs)
    paths = inputs.write(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(error, match=message):
        patchc.build(**paths, out=tmp_path / "fix.patchc", recipe=recipe, dry_run=dry_run)
    assert tree(tmp_path) == before


def test_an_unmergeable_tensor_can_be_excluded(tmp_path: Path) -> None:
    inputs = small_inputs()
    _base_of_doubles(inputs)
    recipe = Recipe(exclude=(r"layers\.1",))
    report = patchc.build(**inputs.write(tmp_path), out=tmp_path / "fix.patchc", recipe=recipe)
    assert report.plan.candidates == (LAYER_0,)


def test_a_missing_scores_file_is_named(tmp_path: Path) -> None:
    paths = small_inputs().write(tmp_path)
    (paths["osm"] / "scores.safetensors").unlink()
    with pytest.raises(MismatchError, match=r"beside the osm model.*--osm-scores"):
        patchc.build(**paths, out=tmp_path / "fix.patchc")
    with pytest.raises(CheckpointError, match="nowhere"):
        patchc.build(**paths, out=tmp_path / "fix.patchc", osm_scores=tmp_path / "nowhere")


@pytest.mark.parametrize("part", ["base", "se", "osm"])
def test_a_missing_model_is_named(tmp_path: Path, part: str) -> None:
    paths = small_inputs().write(tmp_path) | {part: tmp_path / "nowhere"}
    with pytest.raises(CheckpointError, match="nowhere: no such file or folder"):
        patchc.build(**paths, out=tmp_path / "fix.patchc")


@pytest.mark.parametrize("part", ["base", "se"])
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
    ],
)
def test_quantised_folders_are_refused(
    tmp_path: Path, part: str, file: str, content: dict[str, Any], message: str
) -> None:
    paths = small_inputs().write(tmp_path)
    (paths[part] / file).write_text(json.dumps(content))
    with pytest.raises(UnsupportedInputError, match=message):
        patchc.build(**paths, out=tmp_path / "fix.patchc")


def test_an_adapter_beside_a_model_is_left_aside(tmp_path: Path) -> None:
    paths = small_inputs().write(tmp_path)
    plain = patchc.build(**paths, out=tmp_path / "plain.patchc")
    for folder in (paths["base"], paths["se"]):
        (folder / "config.json").write_text("{}")
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(b"not looked into")
    assert patchc.build(**paths, out=tmp_path / "fix.patchc").root == plain.root
    report = patchc.apply(tmp_path / "fix.patchc", paths["base"], out=tmp_path / "out")
    names = ["adapter_config.json", "adapter_model.safetensors"]
    assert [one.name for one in report.left_aside if one.name in names] == names
    assert not {*names} & {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("chunk_bits", [-1, 0, 11, 23, 64])
@pytest.mark.parametrize("dry_run", [True, False])
def test_chunk_bits_out_of_range(tmp_path: Path, chunk_bits: int, dry_run: bool) -> None:
    paths = small_inputs().write(tmp_path)
    with pytest.raises(UsageError, match="chunk_bits"):
        patchc.build(**paths, out=tmp_path / "fix.patchc", chunk_bits=chunk_bits, dry_run=dry_run)
    assert not (tmp_path / "fix.patchc").exists()


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_out_of_range_are_refused(tmp_path: Path, threads: int) -> None:
    with pytest.raises(UsageError, match="threads"):
        patchc.build(**small_inputs().write(tmp_path), out=tmp_path / "fix.patchc", threads=threads)


@pytest.mark.parametrize("out", ["base", "base/fix.patchc", "se/deep/fix.patchc", "taken", "empty"])
def test_an_unusable_output_is_refused(tmp_path: Path, out: str) -> None:
    paths = small_inputs().write(tmp_path)
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    with pytest.raises(OutputError, match=str(tmp_path / out)):
        patchc.build(**paths, out=tmp_path / out)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("part", ["se", "osm"])
def test_a_bad_score_is_named(tmp_path: Path, part: str, value: float) -> None:
    inputs = random_inputs({LAYER_0: (2, 4100)})
    inputs.scores[part][LAYER_0][1, 4000] = value
    paths = inputs.write(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(NumericError, match=rf"{part}.*{LAYER_0}.*flat index 8100"):
        patchc.build(**paths, out=tmp_path / "fix.patchc", chunk_bits=12)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("where", ["base", "se", "osm"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_counts_inside_the_selection_only(
    tmp_path: Path, where: str, value: float
) -> None:
    inputs = random_inputs({LAYER_0: (40, 50)})
    recipe = Recipe(seed=4)
    chosen = expected_tensors(inputs, recipe)[LAYER_0]
    mine = {"base": chosen.se ^ chosen.osm, "se": chosen.se & ~chosen.osm}
    inside = np.flatnonzero(mine.get(where, chosen.osm & ~chosen.se))
    outside = np.flatnonzero(~(chosen.se | chosen.osm))
    arrays = inputs.base if where == "base" else inputs.tuned[where]
    arrays[LAYER_0].ravel()[outside] = value
    patchc.build(**inputs.write(tmp_path / "a"), out=tmp_path / "a.patchc", recipe=recipe)
    assert check_equal(inputs, recipe, tmp_path / "a.patchc") > 0
    arrays[LAYER_0].ravel()[inside[-1]] = value
    with pytest.raises(NumericError, match=f"{LAYER_0}.*flat index {inside[-1]}:.*{where}"):
        patchc.build(**inputs.write(tmp_path / "b"), out=tmp_path / "b.patchc", recipe=recipe)
    assert not (tmp_path / "b.patchc").exists()


@pytest.mark.parametrize(
    ("dtype", "start", "alpha"),
    [("F16", 65504.0, 8e4), ("F32", 1, 3e38)],
)
def test_overflow_is_refused(tmp_path: Path, dtype: str, start: float, alpha: float) -> None:
    inputs = random_inputs({LAYER_0: (30,)}, dtype)
    inputs.base[LAYER_0][:] = start
    inputs.tuned["se"][LAYER_0][:] = np.float32(start) + np.float32(4)
    recipe = Recipe(retain=1, top_se=1, top_osm=0, alpha=alpha)
    with pytest.raises(NumericError, match="too large"):
        patchc.build(**inputs.write(tmp_path), out=tmp_path / "fix.patchc", recipe=recipe)
    assert not (tmp_path / "fix.patchc").exists()


def test_scores_that_change_during_the_run(tmp_path: Path) -> None:
    inputs = random_inputs({f"model.layers.{i}.weight": (50, 100) for i in range(6)})
    paths = inputs.write(tmp_path)
    scores = paths["osm"] / "scores.safetensors"
    with pytest.raises(CheckpointError, match=r"osm/scores\.safetensors: was changed while in use"):
        patchc.build(**paths, out=tmp_path / "fix.patchc", progress=changer(scores))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "osm", "se"]


def test_scores_may_be_named_like_the_base_in_any_order(tmp_path: Path) -> None:
    """Position in a file plays no part: reversed files give the same patch."""
    inputs = small_inputs()
    out = tmp_path / "a.patchc", tmp_path / "b.patchc"
    patchc.build(**inputs.write(tmp_path / "a"), out=out[0])
    reverse = Inputs(
        dict(reversed(inputs.base.items())),
        {part: dict(reversed(held.items())) for part, held in inputs.tuned.items()},
        {part: dict(reversed(held.items())) for part, held in inputs.scores.items()},
    )
    patchc.build(**reverse.write(tmp_path / "b"), out=out[1])
    assert out[0].read_bytes() == out[1].read_bytes()


def test_neighbours_of_integers_stay_untouched(tmp_path: Path) -> None:
    """A base may hold tensors that no build can merge into, as long as none has scores."""
    inputs = small_inputs()
    inputs.base["position_ids"] = Raw("I64", (1, 8), bytes(range(64)))
    patchc.build(**inputs.write(tmp_path), out=tmp_path / "fix.patchc")
    assert read_steps(tmp_path / "fix.patchc", inputs.base)["position_ids"] == {}
