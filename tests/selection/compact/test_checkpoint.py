"""Compact checkpoints read as whole tensors, from any place, in any order, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import selection_oracle as oracle
from build_inputs import LAYER_0, NORM, random_inputs, small_inputs
from compact_inputs import BLOCK, write_component, write_components
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_checkpoints import write_model

from patchc.checkpoint import open_checkpoint
from patchc.selection.compact.checkpoint import CompactCheckpoint, bytes_to_read
from patchc.selection.compact.component_folder import CompactComponent

SEED, SHAPE = 11, (3, 3 * BLOCK // 2 + 77)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompactCheckpoint, NDArray]:
    """A tensor of several blocks, and the words that it should have."""
    folder = tmp_path_factory.mktemp("compact")
    inputs = random_inputs({LAYER_0: SHAPE}, seed=4)
    paths = write_components(folder, inputs, SEED, lambda _: 0.03)
    values = inputs.tuned["se"][LAYER_0].ravel()
    mask = oracle.retained("se", LAYER_0, SEED, 0.03, 0, values.size)
    base = open_checkpoint(paths["base"])
    component = CompactComponent.open(paths["se"], base)
    return component.tuned(), np.where(mask, values, 0).astype(np.float32).view(np.uint32)


def read(model: CompactCheckpoint, name: str, first: int, count: int) -> NDArray:
    return model.read_words(model.tensors[name], first, np.empty(count, np.uint32))


@given(first=st.integers(0, 4 * BLOCK), count=st.integers(0, 3 * BLOCK))
def test_any_run_of_words(
    opened: tuple[CompactCheckpoint, NDArray], first: int, count: int
) -> None:
    model, expected = opened
    count = min(count, expected.size - first)
    assert np.array_equal(read(model, LAYER_0, first, count), expected[first : first + count])


def test_threads_read_at_once(opened: tuple[CompactCheckpoint, NDArray]) -> None:
    model, expected = opened
    starts = [7919 * i % (expected.size - 5000) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda start: read(model, LAYER_0, start, 5000), starts))
    for start, run in zip(starts, runs, strict=True):
        assert np.array_equal(run, expected[start : start + 5000])


def test_shape_and_dtype_are_the_whole_tensor_s(
    opened: tuple[CompactCheckpoint, NDArray],
) -> None:
    info = opened[0].tensors[LAYER_0]
    assert (info.shape, info.dtype.name) == (SHAPE, "F32")
    assert bytes_to_read(opened[0], LAYER_0) < 0.04 * info.nbytes


@pytest.mark.parametrize("shards", [1, 2])
def test_other_tensors_are_the_base_s_where_tuning_left_them(tmp_path: Path, shards: int) -> None:
    inputs = small_inputs()
    base = write_model(tmp_path / "base", inputs.base)
    tuned = {name: inputs.tuned["se"][name] for name in inputs.scores["se"]}
    folder = write_component(
        tmp_path / "margin", base, "model-0", tuned, {}, 2, lambda _: 0.5, True, shards
    )
    with open_checkpoint(base) as model, CompactComponent.open(folder, model).tuned() as compact:
        assert compact.tensors.keys() == inputs.base.keys()
        found = read(compact, NORM, 2, 5).view(np.float32)
        assert np.array_equal(found, inputs.base[NORM].astype(np.float32)[2:7])
        assert bytes_to_read(compact, NORM) == inputs.base[NORM].nbytes
