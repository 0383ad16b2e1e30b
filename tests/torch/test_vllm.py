"""Sparse updates through vLLM's own loader of them, on the CPU (`make test-vllm`)."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from live_states import Update, bits, make_update
from loading_engines import RANKS, Engine, engine_of, engine_tensors
from page_blocks import blocks_of
from tiny_checkpoints import nudge

import patchc.torch as live
from patchc.torch import SparseUpdate

pytestmark = pytest.mark.vllm

NAME = "vllm.model_executor.model_loader.checkpoint_weight_patch"
PAGE = Path(__file__).parents[2] / "docs/how-to/update-a-served-model.md"


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module under its own name, in packages that have nothing else."""
    parts = NAME.split(".")
    for depth in range(1, len(parts)):
        package = ".".join(parts[:depth])
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    config: Any = ModuleType("vllm.config")
    config.set_current_vllm_config = nullcontext
    monkeypatch.setitem(sys.modules, "vllm.config", config)
    spec = importlib.util.spec_from_file_location(NAME, os.environ["PATCHC_VLLM"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, NAME, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def worker(vllm: ModuleType) -> Callable[[Engine], Any]:  # noqa: ARG001 (the page imports it)
    """Makes a worker with the extension that the page shows."""
    names: dict[str, Any] = {}
    page = next(one for one in blocks_of(PAGE) if one.title == "patch_worker.py")
    exec(page.text, names)

    def make(engine: Engine) -> Any:
        held = {"vllm_config": None, "device": torch.device("cpu"), "get_model": lambda _: engine}
        return type("Worker", (names["PatchWorker"],), held)()

    return make


def held(engine: Engine) -> dict[str, bytes]:
    return bits(dict(engine.named_buffers()))


def send(vllm: Any, engine: Engine, updates: Iterator[SparseUpdate]) -> None:
    """Each update as it comes, whole ones as dense patches."""
    for one in updates:
        patch = vllm.CheckpointWeightPatch(
            one.name, one.shape, one.dtype, one.values, one.positions
        )
        assert vllm.load_checkpoint_weight_patches(engine, [patch]) == {one.name}


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("nan", [False, True], ids=["", "a new NaN"])
def test_each_update_leads_to_what_the_patched_folder_has(
    tmp_path: Path, vllm: Any, rank: int, nan: bool
) -> None:
    before = engine_tensors()
    after = {name: nudge(one, 0.1, 3) for name, one in before.items()}
    if nan:
        after["k.weight"][2, 5] = np.nan
    update = make_update(tmp_path, before, after)
    engine = engine_of(update.base, rank)
    base, tuned = held(engine), held(engine_of(update.tuned, rank))
    send(vllm, engine, live.sparse_updates(update.patch, update.base))
    assert held(engine) == tuned != base
    send(vllm, engine, live.sparse_updates(update.patch, update.base, target="base"))
    assert held(engine) == base


@pytest.mark.parametrize("rank", range(RANKS))
def test_the_worker_of_the_page_patches_and_takes_back(
    tmp_path: Path, worker: Callable[[Engine], Any], rank: int
) -> None:
    before = engine_tensors()
    after = {name: nudge(one, 0.1, 3) for name, one in before.items() if name != "ids"}
    update = make_update(tmp_path, before, after | {"ids": before["ids"]})
    engine = engine_of(update.base, rank)
    base, tuned = held(engine), held(engine_of(update.tuned, rank))
    worker(engine).load_patch(update.patch, update.base)
    assert held(engine) == tuned != base
    worker(engine).load_patch(update.patch, update.base, target="base")
    assert held(engine) == base


def test_the_worker_of_the_page_refuses_a_whole_tensor_before_it_writes(
    tmp_path: Path, worker: Callable[[Engine], Any]
) -> None:
    before = engine_tensors()
    update = make_update(tmp_path, before, {n: nudge(one, 0.1, 3) for n, one in before.items()})
    engine = engine_of(update.base, 0)
    base = held(engine)
    with pytest.raises(ValueError, match="ids comes whole; load the patched folder again"):
        worker(engine).load_patch(update.patch, update.base)
    assert held(engine) == base


def test_what_comes_whole_is_what_it_would_not_scatter(update: Update, vllm: Any) -> None:
    """Every dtype of the fixture: a scattered one loads, another is refused as a scattered one."""
    seen = set()
    for one in live.sparse_updates(update.patch, update.base):
        if one.dtype in seen:
            continue
        seen.add(one.dtype)
        model: Any = SimpleNamespace(load_weights=lambda weights: {name for name, _ in weights})
        places = torch.zeros(1, dtype=torch.int32)
        patch = vllm.CheckpointWeightPatch(one.name, one.shape, one.dtype, one.values[:1], places)
        if one.positions is None:
            with pytest.raises((TypeError, NotImplementedError)):
                vllm.load_checkpoint_weight_patches(model, [patch])
        else:
            assert vllm.load_checkpoint_weight_patches(model, [patch]) == {one.name}
    assert len(seen) == 8
