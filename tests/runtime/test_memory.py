"""The budget of memory: it decides on threads, never on bytes, and too little is refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from tiny_checkpoints import PatchedModel, tree, write_file

import patchc
from patchc.errors import UsageError
from patchc.runtime.memory import RUNTIME_BYTES, MemoryNeed

MB = 10**6


@pytest.mark.parametrize(
    ("threads", "max_memory", "expected"),
    [
        (8, None, 8),
        (8, RUNTIME_BYTES + 60, 5),
        (2, RUNTIME_BYTES + 60, 2),
        (None, RUNTIME_BYTES + 20, 1),
        (8, RUNTIME_BYTES + 29, 1),
        (8, RUNTIME_BYTES + 30, 2),
    ],
)
def test_threads_are_as_many_as_fit(
    threads: int | None, max_memory: int | None, expected: int
) -> None:
    """Ten bytes a thread and ten besides; only a given budget limits threads asked for."""
    assert MemoryNeed("this", 10, 10, 0).threads_within(threads, max_memory) == expected


def test_without_a_budget_one_thread_runs_at_least() -> None:
    assert MemoryNeed("this", 10**12, 0, 0).threads_within(None, None) == 1


@pytest.mark.parametrize("verb", ["apply", "revert", "in place", "diff", "verify"])
def test_too_little_is_refused_by_name(tmp_path: Path, patched: PatchedModel, verb: str) -> None:
    base, tuned, patch = patched.base, patched.tuned, patched.patch
    named = base if verb == "diff" else patch
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=f"max_memory is 1,000 bytes, and .*{named.name}.* needs"):
        _run(verb, base, tuned, patch, tmp_path, max_memory=1000)
    assert tree(tmp_path) == before


def _run(verb: str, base: Path, tuned: Path, patch: Path, folder: Path, **options: Any) -> Any:
    calls: dict[str, Any] = {
        "apply": lambda: patchc.apply(patch, base, out=folder / "out", **options),
        "revert": lambda: patchc.revert(patch, tuned, out=folder / "out", **options),
        "in place": lambda: patchc.apply(patch, base, in_place=True, **options),
        "diff": lambda: patchc.diff(base, tuned, out=folder / "again.patchc", **options),
        "verify": lambda: patchc.verify(patch, base, **options),
    }
    return calls[verb]()


def test_a_build_is_refused_too(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    weights = np.ones((8, 8), np.float32)
    for model in ("base", "one"):
        write_file(tmp_path / f"{model}.safetensors", {name: weights})
    with pytest.raises(UsageError, match=r"a build on .*base\.safetensors needs at least"):
        patchc.build(
            tmp_path / "base.safetensors",
            tuned=tmp_path / "one.safetensors",
            recipe=patchc.MergeRecipe("task-arithmetic"),
            out=tmp_path / "out.patchc",
            max_memory=MB,
        )


def test_a_small_budget_gives_the_same_bytes(tmp_path: Path, patched: PatchedModel) -> None:
    """Just enough for one thread; what runs with it runs alone."""
    names: set[str] = set()

    def watch(_event: object) -> None:
        names.update(one.name for one in threading.enumerate() if one.name.startswith("patchc"))

    options: dict[str, Any] = {"threads": 4, "max_memory": RUNTIME_BYTES + 3 * MB}
    patchc.apply(patched.patch, patched.base, out=tmp_path / "out", progress=watch, **options)
    assert tree(tmp_path / "out") == tree(patched.tuned)
    assert len(names) == 1
    patchc.diff(
        patched.base, patched.tuned, out=tmp_path / "again.patchc", chunk_bits=12, **options
    )
    assert (tmp_path / "again.patchc").read_bytes() == patched.patch.read_bytes()


@pytest.mark.parametrize("size", ["400MB", "0.4 GB", "390 MiB", "400000000"])
def test_sizes_on_the_command_line(patched: PatchedModel, size: str) -> None:
    code, _, _ = run("verify", patched.patch, "--max-memory", size)
    assert code == 0


@pytest.mark.parametrize("size", ["much", "-3", "3 TB", "", "1e9", "12MBs"])
def test_sizes_that_are_none_are_refused(patched: PatchedModel, size: str) -> None:
    code, _, err = run("verify", patched.patch, "--max-memory", size)
    assert code == 2
    assert "not a size" in err


def test_too_little_on_the_command_line(patched: PatchedModel) -> None:
    code, _, err = run("verify", patched.patch, patched.base, "--max-memory", "10MB")
    assert code == 2
    assert "needs at least" in err
