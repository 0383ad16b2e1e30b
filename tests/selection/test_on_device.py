"""Builds and merges on a device against the CPU's path, byte for byte.

As they are, the tests stage tensors that stay in the host's memory, and kernels take their compiled
loops. One runs this file again in Triton's interpreter, where they take the Triton kernels, and
``pytest -m gpu`` runs those on a CUDA device.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from additive_inputs import LAYERS, write_inputs
from build_inputs import LAYER_0, LAYER_1, NORM, Inputs, random_inputs
from command_line import run
from tiny_checkpoints import PatchedModel, tree

import patchc
import patchc.selection.safepatching.on_device
from patchc import Recipe
from patchc.errors import (
    MissingExtraError,
    NumericError,
    PatchcError,
    UnsupportedInputError,
    UsageError,
)
from patchc.recipe.safepatching import Override
from patchc.runtime.device import computing_on, open_device
from patchc.runtime.device_pool import DevicePool

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
SHAPES = {LAYER_0: (7, 4099), LAYER_1: (130, 97), "layers.2.weight": (0,), NORM: (33,)}
SCORES_OF_ALL = 2 * 4 * (7 * 4099 + 130 * 97)


def build_both(
    paths: dict[str, Path], folder: Path, staging: DevicePool, **options: Any
) -> tuple[bytes, bytes]:
    """The files that the CPU's path and the device's write."""
    folder.mkdir(exist_ok=True)
    out = folder / "cpu.patchc", folder / "device.patchc"
    patchc.build(**paths, out=out[0], **options)
    with computing_on(staging):
        patchc.build(**paths, out=out[1], **options)
    return out[0].read_bytes(), out[1].read_bytes()


@pytest.mark.parametrize("scope", ["tensor", "row", "global"])
@pytest.mark.parametrize("rank_among", ["retained", "all"])
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("room", [1 << 30, 0])
def test_the_device_writes_the_same_file(
    tmp_path: Path, device: str, scope: Any, rank_among: Any, levels: int | None, room: int
) -> None:
    """With and without ties across chunks, with and without room for scores."""
    inputs = random_inputs(SHAPES, levels=levels, seed=4, unscored=(NORM,))
    recipe = Recipe(scope=scope, rank_among=rank_among, retain=0.6, top_se=0.3, top_osm=0.2)
    staging = DevicePool(device, 2 * room)
    options = {"recipe": recipe, "chunk_bits": 12, "threads": 3}
    expected, found = build_both(inputs.write(tmp_path), tmp_path, staging, **options)
    assert found == expected


@pytest.mark.parametrize("scope", ["tensor", "row"])
def test_a_small_file(tmp_path: Path, device: str, scope: Any) -> None:
    """Two chunks, with ties across them: little enough for the interpreter."""
    paths = random_inputs({LAYER_0: (6, 700)}, levels=3).write(tmp_path)
    recipe = Recipe(scope=scope, retain=0.7, top_se=0.4)
    expected, found = build_both(paths, tmp_path, DevicePool(device), recipe=recipe, chunk_bits=12)
    assert found == expected


@pytest.mark.parametrize(
    ("dtype", "tuned"),
    [("F32", "F32"), ("F16", "BF16"), ("F16", "F32"), ("BF16", "BF16")],
)
@pytest.mark.parametrize("sets", ["difference", "intersection", "union", "se", "osm"])
def test_every_dtype_and_set(
    tmp_path: Path, device: str, dtype: str, tuned: str, sets: Any
) -> None:
    inputs = random_inputs({LAYER_0: (5, 997), LAYER_1: (64,)}, dtype, tuned, seed=1)
    recipe = Recipe(
        sets=sets,
        alpha=-3.0,
        rescale=True,
        least_step=2,
        overrides=(Override(match=r"layers\.1", alpha=0.5, retain=1.0, top_osm=0.0),),
    )
    paths = inputs.write(tmp_path)
    expected, found = build_both(paths, tmp_path, DevicePool(device), recipe=recipe, chunk_bits=12)
    assert found == expected


@pytest.mark.parametrize("scope", ["tensor", "row"])
def test_additive_deltas_and_a_merge_are_the_same_file(
    tmp_path: Path, device: str, scope: Any
) -> None:
    paths = random_inputs({LAYER_0: (50, 99)}, levels=7).write(tmp_path)
    options: dict[str, Any] = {"recipe": Recipe(scope=scope), "values": "additive"}
    expected, found = build_both(paths, tmp_path, DevicePool(device), chunk_bits=12, **options)
    assert found == expected
    merge = {"base": paths["base"], "tuned": [paths["se"], paths["osm"]]}
    options = {"recipe": patchc.MergeRecipe("ties"), "chunk_bits": 12}
    expected, found = build_both(merge, tmp_path / "merge", DevicePool(device), **options)
    assert found == expected


def test_the_kernels_do_the_work(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparisons above would hold as well if the device were never asked."""
    called: list[str] = []
    module = patchc.selection.safepatching.on_device
    for name in ("select_changes", "top_mask", "mark_top"):
        whole = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, n=name, f=whole, **k: (called.append(n), f(*a, **k))[1]
        )
    paths = random_inputs({LAYER_0: (3, 4096)}, levels=2).write(tmp_path)
    for scope, expected in (
        # Ties are counted by chunk, for two components.
        ("tensor", ["mark_top"] * 6 + ["select_changes"] * 3),
        ("global", ["select_changes"] * 3),
    ):
        recipe = Recipe(scope=scope)  # type: ignore[arg-type]
        build_both(paths, tmp_path / scope, DevicePool(device), recipe=recipe, chunk_bits=12)
        assert called == expected
        called.clear()
    narrow = random_inputs({LAYER_0: (3, 1024)}).write(tmp_path / "narrow")
    build_both(narrow, tmp_path, DevicePool(device), recipe=Recipe(scope="row"), chunk_bits=12)
    assert called == ["top_mask"] * 2 + ["select_changes"]


@pytest.mark.parametrize(
    ("memory", "uploads"), [(2 * SCORES_OF_ALL, 4), (SCORES_OF_ALL, 2), (SCORES_OF_ALL // 4, 0)]
)
def test_scores_are_kept_within_the_memory(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch, memory: int, uploads: int
) -> None:
    """Half of it for scores: those of both tensors, of one while the other waits, of none."""
    kept: list[int] = []
    whole = DevicePool.empty
    monkeypatch.setattr(
        DevicePool,
        "empty",
        lambda self, count, dtype: (kept.append(count), whole(self, count, dtype))[1],
    )
    shapes = {name: SHAPES[name] for name in (LAYER_0, LAYER_1)}
    paths = random_inputs(shapes).write(tmp_path)
    expected, found = build_both(paths, tmp_path, DevicePool(device, memory), chunk_bits=12)
    assert found == expected
    assert len(kept) == uploads


def _bad_score(inputs: Inputs) -> None:
    inputs.scores["osm"][LAYER_0][2, 900] = -1.0


def _bad_base(inputs: Inputs) -> None:
    inputs.base[LAYER_0][3:5, 90:] = np.nan


def _bad_tuned(inputs: Inputs) -> None:
    inputs.tuned["osm"][LAYER_0][3:5, 90:] = np.inf


def _too_large(inputs: Inputs) -> None:
    inputs.tuned["se"][LAYER_0][:] = 3e38


@pytest.mark.parametrize("scope", ["tensor", "row"])
@pytest.mark.parametrize("change", [_bad_score, _bad_base, _bad_tuned, _too_large])
def test_the_same_fault_is_named(tmp_path: Path, device: str, change: Any, scope: Any) -> None:
    inputs = random_inputs({LAYER_0: (9, 1001)}, "F32")
    change(inputs)
    paths, recipe = inputs.write(tmp_path), Recipe(scope=scope, alpha=9.0)
    before = tree(tmp_path)
    messages = []
    for where in (nullcontext(), computing_on(DevicePool(device))):
        with where, pytest.raises(NumericError, match=LAYER_0) as caught:
            patchc.build(**paths, out=tmp_path / "x", recipe=recipe, chunk_bits=12, threads=1)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert tree(tmp_path) == before


def test_a_full_device_is_no_traceback(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(*_arguments: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("out of memory: 2 GiB are free\nand more lines")

    paths = random_inputs({LAYER_0: (5, 5)}).write(tmp_path)
    staging = DevicePool(device)
    monkeypatch.setattr(torch, "empty", empty)
    told = pytest.raises(UnsupportedInputError, match=r"\(out of memory: 2 GiB are free\).*cpu")
    with computing_on(staging), told:
        patchc.build(**paths, out=tmp_path / "fix.patchc")
    assert not (tmp_path / "fix.patchc").exists()


# Additive patches ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("value_type", ["bf16", "int8"])
def test_additive_values_give_the_same_model(
    tmp_path: Path, device: str, dtype: str, value_type: Any
) -> None:
    paths = write_inputs(tmp_path, dtype).paths
    patch = tmp_path / "fix.patchc"
    options: dict[str, Any] = {"values": "additive", "value_type": value_type, "chunk_bits": 12}
    patchc.build(**paths, out=patch, recipe=Recipe(retain=0.5, alpha=2, beta=3), **options)
    folders = [tmp_path / "a", tmp_path / "b"]
    patchc.apply(patch, paths["base"], out=folders[0], alpha=1.7)
    with computing_on(DevicePool(device)):
        patchc.apply(patch, paths["base"], out=folders[1], alpha=1.7)
    assert tree(folders[0]) == tree(folders[1])
    assert tree(folders[0]) != tree(paths["base"])


def test_the_same_fault_of_a_merge_is_named(tmp_path: Path, device: str) -> None:
    paths = write_inputs(tmp_path, "F16").paths
    patch, out = tmp_path / "fix.patchc", tmp_path / "out"
    patchc.build(**paths, out=patch, values="additive", chunk_bits=12)
    messages = []
    for where in (nullcontext(), computing_on(DevicePool(device))):
        with where, pytest.raises(NumericError, match=LAYERS[0]) as caught:
            patchc.apply(patch, paths["base"], out=out, alpha=1e9, threads=1)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert not out.exists()


# Choosing a device -----------------------------------------------------------------------------


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_device")
def test_a_missing_device_is_refused_by_name(tmp_path: Path, patched: PatchedModel) -> None:
    paths = random_inputs({LAYER_0: (4, 4)}).write(tmp_path)
    parts = ("--se", paths["se"], "--osm", paths["osm"])
    out = tmp_path / "out"
    for command in (
        ("build", paths["base"], *parts, "-o", out),
        ("build", paths["base"], "--recipe", "dare", "--tuned", paths["se"], "-o", out),
        ("apply", patched.patch, patched.base, "-o", out),
        ("revert", patched.patch, patched.tuned, "-o", out),
        ("apply", patched.patch, patched.base, "--in-place"),
        ("revert", patched.patch, patched.tuned, "--in-place"),
    ):
        code, _, error = run(*command, "--device", "cuda")
        assert code == UsageError.exit_code
        assert "--device cpu" in " ".join(error.split())
    assert not out.exists()


@pytest.mark.usefixtures("no_device")
def test_auto_takes_the_cpu_without_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchc.runtime.device._has_driver", lambda: True)
    assert open_device("auto") is None
    paths = random_inputs({LAYER_0: (40, 40)}).write(tmp_path)
    out = tmp_path / "a", tmp_path / "b"
    patchc.build(**paths, out=out[0])
    parts = ("--se", paths["se"], "--osm", paths["osm"])
    assert run("build", paths["base"], *parts, "-o", out[1], "--device", "auto")[0] == 0
    assert out[0].read_bytes() == out[1].read_bytes()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchc.runtime.device.find_spec", lambda _name: None)
    assert open_device("auto") is None
    with pytest.raises(MissingExtraError, match=r"\[gpu\]"):
        open_device("cuda")


def test_an_unknown_device_is_refused(tmp_path: Path, patched: PatchedModel) -> None:
    for call in (
        lambda device: patchc.build(patched.base, out=tmp_path / "x", device=device),
        lambda device: patchc.apply(patched.patch, patched.base, in_place=True, device=device),
    ):
        for unknown in ("tpu", torch.device("meta")):
            with pytest.raises(PatchcError):
                call(unknown)
    for unknown in ("tpu", "cuda:", "cuda:x", "", None, 1):
        with pytest.raises(UsageError, match="auto, cpu, cuda"):
            open_device(unknown)  # type: ignore[arg-type]


def test_a_torch_device_is_taken(
    tmp_path: Path, patched: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    patchc.apply(patched.patch, patched.base, out=tmp_path / "a", device=torch.device("cpu"))
    assert tree(tmp_path / "a") == tree(patched.tuned)
    assert patchc.EvaluateOptions(device=torch.device("cuda", 1)).device == "cuda:1"
    assert patchc.DeriveOptions(device=torch.device("cpu")).to_json()["device"] == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for verb in (patchc.apply, patchc.revert):
        with pytest.raises(UsageError, match="cuda:2 and torch sees 2"):
            verb(patched.patch, patched.base, in_place=True, device=torch.device("cuda", 2))


def test_auto_loads_no_torch_without_a_driver(tmp_path: Path) -> None:
    paths = random_inputs({LAYER_0: (4, 40)}).write(tmp_path)
    code = """
import sys
import patchc
import patchc.runtime.device as device
device._has_driver = lambda: False
base, se, osm, out = sys.argv[1:]
patchc.build(base, se=se, osm=osm, out=out, device="auto")
print("torch" in sys.modules)
"""
    arguments = [*map(str, paths.values()), str(tmp_path / "out")]
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert finished.stdout == "False\n"


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's run")
def test_in_the_interpreter() -> None:
    """In a process of its own, because triton reads the variable when it is imported."""
    chosen = (
        "test_a_small_file[cpu-tensor]",
        "test_a_small_file[cpu-row]",
        "test_every_dtype_and_set[cpu-difference-BF16-BF16]",
        "test_additive_values_give_the_same_model[cpu-int8-BF16]",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [*command, *(f"{__file__}::{one}" for one in chosen)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-6000:]
    assert finished.stdout.splitlines()[-1].startswith("4 passed"), finished.stdout
