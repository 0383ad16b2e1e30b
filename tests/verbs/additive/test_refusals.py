"""What is refused of additive patches: revert, scales, options, values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from additive_inputs import (
    LAYERS,
    Inputs,
    stored_deltas,
    write_inputs,
)
from additive_runs import RECIPE, build
from forged_patch import parts_of
from tiny_checkpoints import names_of, write_model

import patchc
from patchc import Recipe
from patchc.errors import (
    NumericError,
    PatchFormatError,
    UnsupportedInputError,
    UsageError,
    WrongBaseError,
)
from patchc.recipe import MergeRecipe


def test_revert_is_refused(tmp_path: Path, inputs: Inputs, patch: Path) -> None:
    patchc.apply(patch, inputs.paths["base"], out=tmp_path / "patched")
    before = names_of(tmp_path)
    with pytest.raises(UnsupportedInputError, match=r"cannot be taken back.*Keep the base model"):
        patchc.revert(patch, tmp_path / "patched", out=tmp_path / "back")
    assert names_of(tmp_path) == before


def test_a_second_apply_is_refused(tmp_path: Path, inputs: Inputs, patch: Path) -> None:
    patchc.apply(patch, inputs.paths["base"], out=tmp_path / "patched")
    with pytest.raises(WrongBaseError, match=LAYERS[0]):
        patchc.apply(patch, tmp_path / "patched", out=tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


@pytest.mark.parametrize(
    "options", [{"alpha": 1.0}, {"beta": 0.0}, {"onto_descendant": True}, {"alpha": 1, "beta": 2}]
)
def test_exact_patches_take_no_options(
    tmp_path: Path, inputs: Inputs, options: dict[str, Any]
) -> None:
    exact = tmp_path / "exact.patchc"
    patchc.build(**inputs.paths, out=exact, recipe=RECIPE)
    with pytest.raises(UsageError, match=r"holds exact steps.*--values additive"):
        patchc.apply(exact, inputs.paths["base"], out=tmp_path / "patched", **options)
    assert not (tmp_path / "patched").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39, "6", True])
@pytest.mark.parametrize("which", ["alpha", "beta"])
def test_scales_out_of_range_are_refused(
    tmp_path: Path, inputs: Inputs, patch: Path, which: str, value: Any
) -> None:
    with pytest.raises(UsageError, match=which):
        patchc.apply(patch, inputs.paths["base"], out=tmp_path / "patched", **{which: value})
    assert not (tmp_path / "patched").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": "exact"}, "values is 'exact'"),
        ({"values": "additive", "value_type": "fp4"}, "value_type is 'fp4'"),
        ({"values": "ulp", "value_type": "bf16"}, "value_type is for additive"),
        ({"value_type": "int8"}, "value_type is for additive"),
    ],
)
def test_build_options_out_of_range(
    tmp_path: Path, inputs: Inputs, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        patchc.build(**inputs.paths, out=tmp_path / "fix.patchc", **options)
    assert not (tmp_path / "fix.patchc").exists()


def first_entry(inputs: Inputs) -> int:
    """The first flat index that the SE component has in the first layer."""
    return int(np.flatnonzero(stored_deltas(inputs, LAYERS[0], "bf16", 1 << 20)[0])[0])


@pytest.mark.parametrize("stated", [True, False])
def test_a_quantised_descendant(tmp_path: Path, inputs: Inputs, patch: Path, stated: bool) -> None:
    """Its words are not what the patch adds to, whether its configuration says so or a tensor."""
    config = {"quantization_config": {"quant_method": "bitsandbytes"}}
    text = {"config.json": json.dumps(config)} if stated else {}
    states = {} if stated else {f"{LAYERS[0]}.absmax": np.ones(2, np.float32)}
    model = write_model(tmp_path / "further", inputs.base | states, side_files=text)
    before = names_of(tmp_path)
    with pytest.raises(UnsupportedInputError, match=r"bitsandbytes.*use the unquantised"):
        patchc.apply(patch, model, out=tmp_path / "patched", onto_descendant=True)
    assert names_of(tmp_path) == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_descendant_that_is_not_finite(
    tmp_path: Path, inputs: Inputs, patch: Path, value: float
) -> None:
    tensors = dict(inputs.base)
    tensors[LAYERS[0]] = tensors[LAYERS[0]].copy()
    at = first_entry(inputs)
    tensors[LAYERS[0]].ravel()[at] = value
    model = write_model(tmp_path / "further", tensors)
    before = names_of(tmp_path)
    with pytest.raises(NumericError, match=f"{LAYERS[0]}.*flat index {at}:"):
        patchc.apply(patch, model, out=tmp_path / "patched", onto_descendant=True)
    assert names_of(tmp_path) == before


@pytest.mark.parametrize(("dtype", "alpha"), [("F16", 1e9), ("F32", 3e38), ("BF16", 3.3e38)])
def test_overflow_names_tensor_and_flat_index(tmp_path: Path, dtype: str, alpha: float) -> None:
    inputs = write_inputs(tmp_path / "inputs", dtype)
    inputs.tuned["se"][LAYERS[0]] += np.float32(2)
    write_model(tmp_path / "inputs" / "se", inputs.tuned["se"], shards=2)
    out = build(inputs, tmp_path / "fix.patchc", chunk_bits=12)
    before = names_of(tmp_path)
    at = first_entry(inputs)
    with pytest.raises(NumericError, match=f"{LAYERS[0]}.*flat index {at}:.*{dtype}"):
        patchc.apply(out, inputs.paths["base"], out=tmp_path / "patched", alpha=alpha, beta=0)
    assert names_of(tmp_path) == before


@pytest.mark.parametrize(("value_type", "delta"), [("bf16", 3.4e38), ("int8", None)])
def test_a_delta_that_cannot_be_stored(
    tmp_path: Path, value_type: str, delta: float | None
) -> None:
    """bf16 ends below fp32; and a difference of two fp32 numbers can overflow fp32 itself."""
    inputs = write_inputs(tmp_path / "inputs", "F32")
    at = first_entry(inputs)
    inputs.base[LAYERS[0]].ravel()[at] = 0 if delta else -3e38
    inputs.tuned["se"][LAYERS[0]].ravel()[at] = delta or 3e38
    write_model(tmp_path / "inputs" / "base", inputs.base, shards=2)
    write_model(tmp_path / "inputs" / "se", inputs.tuned["se"], shards=2)
    before = names_of(tmp_path)
    with pytest.raises(NumericError, match=f"{LAYERS[0]}.*flat index {at}:.*se delta"):
        build(inputs, tmp_path / "fix.patchc", value_type)
    assert names_of(tmp_path) == before


def test_a_claim_of_entries_that_the_chunks_do_not_hold(tmp_path: Path, patch: Path) -> None:
    parts = parts_of(patch.read_bytes())
    metadata = json.loads(parts.metadata)
    metadata["additive"]["components"][1]["entries"] += 1
    forged = tmp_path / "forged.patchc"
    forged.write_bytes(parts.but(metadata=json.dumps(metadata).encode()).assemble())
    with pytest.raises(PatchFormatError, match=r"claims .* entries of component 'osm'"):
        patchc.verify(forged)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(least_step=2), "least_step counts steps"),
        (MergeRecipe("ties"), "ties has exact ones only"),
    ],
)
def test_what_additive_values_cannot_hold_is_refused(
    tmp_path: Path, recipe: Recipe | MergeRecipe, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        patchc.build(tmp_path, out=tmp_path / "x.patchc", recipe=recipe, values="additive")
