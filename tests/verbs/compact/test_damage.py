"""Components that are cut, changed or made up by a stranger."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_inputs import LAYER_0, random_inputs
from compact_inputs import as_counts, change_description, read_description, write_components
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_checkpoints import read_file, write_file, write_model

import patchc
from patchc import Recipe
from patchc.errors import CheckpointError, PatchcError

RECIPE = Recipe(sets="se", retain=0.2, top_se=0.1)


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    inputs = random_inputs({LAYER_0: (6, 100)})
    made = write_components(tmp_path / "held", inputs, 0, lambda _: 0.2)
    return {"base": made["base"], "se": made["se"]}


def build(paths: dict[str, Path], out: Path) -> None:
    patchc.build(**paths, out=out, recipe=RECIPE)


def refused(paths: dict[str, Path], tmp_path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build(paths, tmp_path / "x.patchc")
    assert not (tmp_path / "x.patchc").exists()


@pytest.mark.parametrize(
    "file", ["component.safetensors", "component-counts.safetensors", "component-scores-weight.sa"]
)
def test_a_file_that_is_missing_or_cut(paths: dict[str, Path], tmp_path: Path, file: str) -> None:
    (path,) = paths["se"].glob(f"{file}*")
    whole = path.read_bytes()
    for size in (0, 7, 40, len(whole) - 4):
        path.write_bytes(whole[:size])
        refused(paths, tmp_path, f"{path}: not a readable safetensors file")
    path.unlink()
    refused(paths, tmp_path, f"{path}: no such file, and it is a part of the compact component")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not the description of a compact component"),
        (b"[]", "its kind is not 'patchc component'"),
        (b"[" * 100_000, "not the description of a compact component"),
        (b'{"kind": "patchc component", "version": 2}', "another version of patchc wrote it"),
        (b'{"kind": "patchc component", "version": 1}', "it has no component"),
        (b"\xff", "not the description of a compact component"),
    ],
)
def test_a_description_that_is_none(
    paths: dict[str, Path], tmp_path: Path, content: bytes, message: str
) -> None:
    (paths["se"] / "component.json").write_bytes(content)
    refused(paths, tmp_path, message)


@pytest.mark.parametrize(
    "changes",
    [
        {"component": "se/../x"},
        {"component": 3},
        {"component": "model-" + 5000 * "9"},
        {"seed": -1},
        {"seed": 1.5},
        {"seed": 2**64},
        {"scores": "weight"},
        {"scores": ["../../x"]},
        {"rest_unchanged": 1},
        {"base": None},
        {"tensors": []},
        {"tensors": {LAYER_0: {}}},
        {"tensors": {LAYER_0: 7}},
        {"tensors": {LAYER_0: {"shape": [6, -100], "retain": 0.2}}},
        {"tensors": {LAYER_0: {"shape": [6, 100.0], "retain": 0.2}}},
        {"tensors": {LAYER_0: {"shape": [2**40, 2**40], "retain": 0.2}}},
        {"tensors": {LAYER_0: {"shape": [6, 100], "retain": float("nan")}}},
        {"tensors": {LAYER_0: {"shape": [6, 100], "retain": 2}}},
        {"unknown": 1},
    ],
)
def test_a_description_that_says_something_impossible(
    paths: dict[str, Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    change_description(paths["se"], **changes)
    refused(paths, tmp_path, "not the description of a compact component")


def test_a_shape_that_does_not_fit_the_files(paths: dict[str, Path], tmp_path: Path) -> None:
    for shape in ([6, 10**12], [0, 100], [6, 30_000]):
        change_description(paths["se"], tensors={LAYER_0: {"shape": shape, "retain": 0.2}})
        refused(paths, tmp_path, "does not fit its shape")


def test_other_tensors_than_described(paths: dict[str, Path], tmp_path: Path) -> None:
    held = read_description(paths["se"])["tensors"]
    change_description(paths["se"], tensors=held | {"more": held[LAYER_0]})
    refused(paths, tmp_path, "has other tensors than the component's description")


@pytest.mark.parametrize("counts", [[], [2**17 + 1], [2**32 - 1], [1], [1, 1]])
def test_counts_that_do_not_fit(paths: dict[str, Path], tmp_path: Path, counts: list[int]) -> None:
    write_model(paths["se"], {LAYER_0: as_counts(counts)}, stem="component-counts")
    refused(paths, tmp_path, "does not fit its shape")


def test_words_and_counts_of_other_dtypes(paths: dict[str, Path], tmp_path: Path) -> None:
    values = read_file(paths["se"] / "component.safetensors")[LAYER_0]
    write_model(
        paths["se"], {LAYER_0: np.zeros(len(values.data) // 4, np.float64)}, stem="component"
    )
    refused(paths, tmp_path, "does not fit its shape")
    write_model(paths["se"], {LAYER_0: np.zeros(1, np.float32)}, stem="component-counts")
    refused(paths, tmp_path, "is no list of numbers")


def change(path: Path, words: int) -> None:
    """Leave out the last words, or add some."""
    values = np.frombuffer(read_file(path)[LAYER_0].data, np.float32)
    changed = values[:words] if words < 0 else np.concatenate((values, values[:words]))
    write_file(path, {LAYER_0: changed})


@pytest.mark.parametrize("words", [-3, 3])
def test_more_or_fewer_entries_than_the_seed_retains(
    paths: dict[str, Path], tmp_path: Path, words: int
) -> None:
    """The counts agree with the files, and only the draws show that they are wrong."""
    folder = paths["se"]
    for stem in ("component", "component-scores-weight"):
        change(folder / f"{stem}.safetensors", words)
    count = len(read_file(folder / "component.safetensors")[LAYER_0].data) // 4
    write_model(folder, {LAYER_0: as_counts([count])}, stem="component-counts")
    refused(paths, tmp_path, f"tensor '{LAYER_0}' has another number of entries than its seed")


def flip(data: bytes, place: int, value: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes([data[place] ^ (value or 1)]) + data[place + 1 :]


def cut(data: bytes, place: int, _value: int) -> bytes:
    return data[: place % len(data)]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, 3),
    damage=st.sampled_from([flip, cut]),
    place=st.integers(0, 10**6),
    value=st.integers(1, 255),
)
def test_any_damage_is_told_or_harmless(
    paths: dict[str, Path],
    tmp_path: Path,
    number: int,
    damage: Callable[[bytes, int, int], bytes],
    place: int,
    value: int,
) -> None:
    """A build ends with a patch or an error of patchc, whatever byte of the component changes."""
    folder, out = tmp_path / "damaged", tmp_path / "y.patchc"
    shutil.rmtree(folder, ignore_errors=True)
    out.unlink(missing_ok=True)
    shutil.copytree(paths["se"], folder)
    path = sorted(folder.iterdir())[number]
    path.write_bytes(damage(path.read_bytes(), place, value))
    built = True
    try:
        build(paths | {"se": folder}, out)
    except PatchcError:
        built = False
    assert out.exists() == built
