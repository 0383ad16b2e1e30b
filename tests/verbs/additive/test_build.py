"""Additive patches as they are built, against the oracle of additive_inputs.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import second_reader
from additive_inputs import (
    ALPHA,
    BETA,
    LAYERS,
    NORM,
    RETAIN,
    Inputs,
    merged,
    selections,
    stored_deltas,
    write_inputs,
)
from additive_runs import RECIPE, VALUE_TYPES, build, write_expected
from build_inputs import LAYER_0, LAYER_1, small_inputs
from tiny_checkpoints import read_model, tree, write_model

import patchc
from patchc import Recipe
from patchc.errors import (
    NumericError,
)
from patchc.recipe import Override
from patchc.runtime.device import computing_on
from patchc.runtime.device_pool import DevicePool


@pytest.mark.parametrize("value_type", VALUE_TYPES)
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_build_and_apply_equal_the_oracle(tmp_path: Path, dtype: str, value_type: str) -> None:
    inputs = write_inputs(tmp_path / "inputs", dtype)
    out = build(inputs, tmp_path / "fix.patchc", value_type, chunk_bits=12)
    report = patchc.apply(out, inputs.paths["base"], out=tmp_path / "patched")
    wanted = merged(inputs.base, inputs, value_type, chunk_words=4096)
    assert tree(tmp_path / "patched") == write_expected(tmp_path / "expected", wanted)
    assert any(not np.array_equal(wanted[name], inputs.base[name]) for name in LAYERS)
    assert report.merged is not None
    assert report.merged.scales == {"se": ALPHA, "osm": BETA}
    assert (report.merged.value_type, report.merged.differing_tensors) == (value_type, 0)


@pytest.mark.parametrize("value_type", VALUE_TYPES)
def test_the_second_reader_finds_the_deltas_of_the_oracle(
    tmp_path: Path, inputs: Inputs, value_type: str
) -> None:
    out = build(inputs, tmp_path / "fix.patchc", value_type, chunk_bits=12)
    tensors, metadata = second_reader.read(out.read_bytes())
    assert metadata["additive"]["value_type"] == value_type
    assert [(c["name"], c["scale"]) for c in metadata["additive"]["components"]] == [
        ("se", ALPHA), ("osm", BETA),
    ]  # fmt: skip
    assert tensors[NORM].deltas == [{}, {}]
    for name in LAYERS:
        for found, dense, chosen, part in zip(
            tensors[name].deltas,
            stored_deltas(inputs, name, value_type, 4096),
            selections(inputs, name),
            ("se", "osm"),
            strict=True,
        ):
            origin = inputs.base[name].ravel().astype(np.float32)
            stored = chosen & (inputs.tuned[part][name].ravel() != origin)
            assert list(found) == np.flatnonzero(stored).tolist()
            assert list(found.values()) == dense[stored].tolist()
            if name == LAYERS[0]:
                assert stored.sum() < chosen.sum()


@pytest.mark.parametrize("value_type", VALUE_TYPES)
@pytest.mark.parametrize("scales", [(1.5, 0.25), (0.0, 3.0), (-2.0, 0.0), (0.1, 1e-3)])
def test_other_scales_equal_the_oracle(
    tmp_path: Path, inputs: Inputs, value_type: str, scales: tuple[float, float]
) -> None:
    out = build(inputs, tmp_path / "fix.patchc", value_type)
    alpha, beta = scales
    report = patchc.apply(
        out, inputs.paths["base"], out=tmp_path / "patched", alpha=alpha, beta=beta
    )
    wanted = merged(inputs.base, inputs, value_type, scales)
    assert tree(tmp_path / "patched") == write_expected(tmp_path / "expected", wanted)
    assert report.merged is not None
    assert report.merged.scales == {"se": alpha, "osm": beta}


def test_one_scale_leaves_the_other_as_stored(tmp_path: Path, inputs: Inputs, patch: Path) -> None:
    patchc.apply(patch, inputs.paths["base"], out=tmp_path / "patched", beta=2)
    wanted = merged(inputs.base, inputs, "bf16", (ALPHA, 2.0))
    assert tree(tmp_path / "patched") == write_expected(tmp_path / "expected", wanted)


def test_zero_scales_change_nothing_but_negative_zero(
    tmp_path: Path, inputs: Inputs, patch: Path
) -> None:
    assert not any(
        (np.signbit(value.astype(np.float32)) & (value == 0)).any()
        for value in inputs.base.values()
    )
    patchc.apply(patch, inputs.paths["base"], out=tmp_path / "same", alpha=0, beta=0)
    assert tree(tmp_path / "same") == tree(inputs.paths["base"])


@pytest.mark.parametrize("value_type", VALUE_TYPES)
def test_any_thread_count_gives_the_same_files(
    tmp_path: Path, inputs: Inputs, value_type: str
) -> None:
    patches, models = set(), []
    for threads in (1, 2, 5):
        folder = tmp_path / str(threads)
        folder.mkdir()
        out = build(inputs, folder / "fix.patchc", value_type, threads=threads, chunk_bits=12)
        patchc.apply(out, inputs.paths["base"], out=folder / "patched", threads=threads)
        patches.add(out.read_bytes())
        models.append(tree(folder / "patched"))
    assert len(patches) == 1
    assert models[1:] == models[:-1]


def test_any_chunk_size_gives_the_same_model_from_bf16_values(
    tmp_path: Path, inputs: Inputs
) -> None:
    models = []
    for chunk_bits in (12, 13, 20):
        out = build(inputs, tmp_path / f"{chunk_bits}.patchc", chunk_bits=chunk_bits)
        patchc.apply(out, inputs.paths["base"], out=tmp_path / str(chunk_bits))
        models.append(tree(tmp_path / str(chunk_bits)))
    assert models[1:] == models[:-1]


FITTED = replace(
    RECIPE,
    overrides=(Override(LAYERS[0], alpha=-2.3, beta=0.7), Override(LAYERS[1], beta=11.1)),
)
OWN = {LAYERS[0]: (-2.3, 0.7), LAYERS[1]: (ALPHA, 11.1)}


@pytest.mark.parametrize("value_type", VALUE_TYPES)
@pytest.mark.parametrize("rescale", [False, True])
def test_scales_of_tensors_are_worked_into_the_values(
    tmp_path: Path, inputs: Inputs, value_type: str, rescale: bool
) -> None:
    recipe, own = FITTED, OWN
    if rescale:
        recipe = replace(FITTED, rescale=True)
        own = {name: (a / RETAIN, b / RETAIN) for name, (a, b) in OWN.items()}
    out = build(inputs, tmp_path / "fix.patchc", value_type, recipe, chunk_bits=12)
    report = patchc.inspect(out)
    assert report.additive is not None
    assert [component.scale for component in report.additive.components] == [1, 1]
    assert Recipe.from_json(report.metadata["recipe"]) == recipe
    tensors, _ = second_reader.read(out.read_bytes())
    for name in LAYERS:
        stored = stored_deltas(inputs, name, value_type, 4096, own[name])
        for found, dense in zip(tensors[name].deltas, stored, strict=True):
            assert found
            assert list(found.values()) == dense[list(found)].tolist()
    for alpha in (None, 2):
        patched = tmp_path / f"patched {alpha}"
        patchc.apply(out, inputs.paths["base"], out=patched, alpha=alpha)
        wanted = merged(inputs.base, inputs, value_type, (alpha or 1, 1), 4096, own)
        assert tree(patched) == write_expected(tmp_path / f"expected {alpha}", wanted)


def test_twice_the_scale_moves_twice_as_far(tmp_path: Path) -> None:
    """From a base of zeros, in fp32, so that no sum is rounded."""
    inputs = write_inputs(tmp_path / "inputs", "F32")
    inputs.base[LAYERS[0]][:] = 0
    write_model(tmp_path / "inputs" / "base", inputs.base, shards=2)
    recipe = replace(FITTED, sets="se")
    del inputs.paths["osm"]
    out = build(inputs, tmp_path / "fix.patchc", recipe=recipe)
    moved = []
    for alpha in (1, 2):
        patchc.apply(out, inputs.paths["base"], out=tmp_path / str(alpha), alpha=alpha)
        data = read_model(tmp_path / str(alpha))[LAYERS[0]].data
        moved.append(np.frombuffer(data, np.float32))
    assert np.count_nonzero(moved[0]) > 100
    assert np.array_equal(moved[1], 2 * moved[0])


@pytest.mark.parametrize(
    "override", [Override(LAYERS[0], retain=0.4), Override(LAYERS[0], top_se=0.1)]
)
def test_overrides_that_set_no_scale_leave_the_values_unscaled(
    tmp_path: Path, inputs: Inputs, override: Override
) -> None:
    recipe = replace(RECIPE, overrides=(override,))
    report = patchc.inspect(build(inputs, tmp_path / "fix.patchc", recipe=recipe))
    assert report.additive is not None
    assert [component.scale for component in report.additive.components] == [ALPHA, BETA]


def test_scales_of_tensors_on_a_device_give_the_same_file(tmp_path: Path, inputs: Inputs) -> None:
    on_host = build(inputs, tmp_path / "host.patchc", recipe=FITTED, chunk_bits=12)
    with computing_on(DevicePool("cpu")):
        on_device = build(inputs, tmp_path / "device.patchc", recipe=FITTED, chunk_bits=12)
    assert on_host.read_bytes() == on_device.read_bytes()


def test_a_scale_that_makes_a_delta_overflow(tmp_path: Path, inputs: Inputs) -> None:
    inputs.tuned["se"][LAYERS[0]] += np.float32(2)
    write_model(tmp_path / "inputs" / "se", inputs.tuned["se"], shards=2)
    recipe = replace(RECIPE, overrides=(Override(LAYERS[0], alpha=3e38),))
    with pytest.raises(NumericError, match=f"{LAYERS[0]}.*flat index.*se delta is too large"):
        build(inputs, tmp_path / "fix.patchc", recipe=recipe)
    assert not (tmp_path / "fix.patchc").exists()


def test_inspect_and_verify_tell_the_components(
    tmp_path: Path, inputs: Inputs, patch: Path
) -> None:
    report = patchc.inspect(patch)
    assert report.additive is not None
    counts = [0, 0]
    for name in LAYERS:
        for i, dense in enumerate(stored_deltas(inputs, name, "bf16", 1 << 20)):
            counts[i] += int(np.count_nonzero(dense))
    assert report.additive.value_type == "bf16"
    found = [(c.name, c.scale, c.entries) for c in report.additive.components]
    assert found == [("se", ALPHA, counts[0]), ("osm", BETA, counts[1])]
    assert report.total.changed == sum(counts)
    assert (report.result_digest, report.version) == (None, "2.0")
    assert report.metadata["recipe"]["alpha"] == ALPHA
    assert sorted(report.metadata["inputs"]) == ["osm scores", "osm tuned", "se scores", "se tuned"]
    assert patchc.verify(patch).state == "intact"
    assert patchc.verify(patch, inputs.paths["base"]).state == "base"
    patchc.apply(patch, inputs.paths["base"], out=tmp_path / "patched")
    answer = patchc.verify(patch, tmp_path / "patched")
    assert answer.state == "not the base"
    assert repr(LAYERS[0]) in answer.difference


def test_the_provenance_is_that_of_an_exact_build(
    tmp_path: Path, inputs: Inputs, patch: Path
) -> None:
    patchc.build(**inputs.paths, out=tmp_path / "exact.patchc", recipe=RECIPE)
    exact, additive = (patchc.inspect(p).metadata for p in (tmp_path / "exact.patchc", patch))
    assert set(exact) - set(additive) == {"coded", "entropy"}
    assert set(additive) - set(exact) == {"additive"}
    assert all(additive[key] == exact[key] for key in set(additive) & set(exact))


def test_dry_run_plan_bounds_the_size(tmp_path: Path, inputs: Inputs) -> None:
    for value_type in VALUE_TYPES:
        arguments: dict[str, Any] = {
            **inputs.paths, "recipe": RECIPE, "values": "additive", "value_type": value_type,
        }  # fmt: skip
        out = tmp_path / f"{value_type}.patchc"
        plan = patchc.build(**arguments, out=out, dry_run=True).plan
        assert not out.exists()
        report = patchc.build(**arguments, out=out)
        assert report.size <= plan.patch_bytes <= 2 * report.size
        assert report.result_digest is None


def test_a_build_that_selects_nothing(tmp_path: Path, inputs: Inputs) -> None:
    out = tmp_path / "none.patchc"
    recipe = patchc.Recipe(top_se=0, top_osm=0)
    patchc.build(**inputs.paths, out=out, recipe=recipe, values="additive")
    report = patchc.inspect(out)
    assert report.additive is not None
    assert [component.entries for component in report.additive.components] == [0, 0]
    patchc.apply(out, inputs.paths["base"], out=tmp_path / "same")
    assert tree(tmp_path / "same") == tree(inputs.paths["base"])


@pytest.mark.parametrize("sets", ["union", "intersection", "se"])
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (Override(LAYER_0, alpha=-3, retain=0.25), Override(LAYER_1, beta=0.75)),
        (Override(LAYER_1, retain=0.25),),
    ],
)
def test_every_set_operation_and_rescale_equal_the_exact_build(
    tmp_path: Path, sets: str, overrides: tuple[Override, ...]
) -> None:
    """Deltas that bf16 holds exactly: the additive patch then gives the exact build's model."""
    inputs = small_inputs()
    for name, base in inputs.base.items():
        rounded = np.round(base.astype(np.float32) * 16) / np.float32(16)
        inputs.base[name] = rounded.astype(base.dtype)
        inputs.tuned["se"][name] = rounded + np.float32(0.25)
        inputs.tuned["osm"][name] = rounded - np.float32(0.5)
    paths = inputs.write(tmp_path)
    options: Any = {"sets": sets, "overrides": overrides}
    recipe = Recipe(retain=0.5, top_se=0.4, top_osm=0.4, rescale=True, **options)
    for values in ("ulp", "additive"):
        patch = tmp_path / f"{values}.patchc"
        patchc.build(**paths, out=patch, recipe=recipe, values=values)  # type: ignore[arg-type]
        patchc.apply(patch, paths["base"], out=tmp_path / values)
    assert tree(tmp_path / "ulp") == tree(tmp_path / "additive")
    assert tree(tmp_path / "ulp") != tree(paths["base"])
