"""Patched tensors as a stream for loaders, and the room's public names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from live_states import Update, bits, make_update, state_of, stored
from tiny_checkpoints import read_model, write_model

import patchc.torch as live
from patchc.errors import (
    AlreadyPatchedError,
    WrongBaseError,
)


def test_patched_tensors_are_those_of_a_patched_checkpoint(update: Update) -> None:
    streamed = dict(live.patched_tensors(update.patch, update.base, threads=2))
    assert bits(streamed) == stored(update.tuned)
    assert list(streamed) == list(read_model(update.base))
    plain = state_of(update.before)
    assert {n: (t.dtype, t.shape) for n, t in streamed.items()} == {
        n: (t.dtype, t.shape) for n, t in plain.items()
    }


def test_patched_tensors_are_on_the_cpu_whatever_the_default(tmp_path: Path) -> None:
    tensors = {"a": np.zeros(9, np.int32), "none": np.zeros((5, 0), np.float32)}
    update = make_update(tmp_path, tensors, tensors | {"a": np.ones(9, np.int32)})
    with torch.device("meta"):
        streamed = dict(live.patched_tensors(update.patch, update.base))
    assert {tensor.device.type for tensor in streamed.values()} == {"cpu"}


def test_a_loader_may_stop_early_and_keep_what_it_has(update: Update) -> None:
    stream = live.patched_tensors(update.patch, update.base)
    name, tensor = next(stream)
    stream.close()
    assert bits({name: tensor})[name] == stored(update.tuned)[name]


def test_patched_tensors_refuse_another_base(tmp_path: Path, update: Update) -> None:
    with pytest.raises(AlreadyPatchedError, match=r"'a.weight' already holds"):
        list(live.patched_tensors(update.patch, update.tuned))
    other = write_model(
        tmp_path / "other", {**update.before, "k.fixed": update.before["k.fixed"] * 2}
    )
    with pytest.raises(WrongBaseError, match=r"k.fixed"):
        list(live.patched_tensors(update.patch, other))


def test_without_torch_one_message_says_what_to_install(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None
import patchc
try:
    patchc.torch.apply_
except patchc.PatchcError as error:
    print(type(error).__name__, error)
"""
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.stdout.startswith("MissingExtraError patchc.torch.apply_ needs torch"), finished


def test_public_names_resolve() -> None:
    assert all(getattr(live, name) is not None for name in live.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = live.nothing
