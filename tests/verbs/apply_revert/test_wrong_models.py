"""Apply and revert refuse a model that is not theirs, and say why."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from directions import CHANGED, FIRST, SECOND, Direction, refused
from tiny_checkpoints import (
    nudge,
    write_model,
)

from patchc.errors import (
    AlreadyPatchedError,
    NotPatchedError,
    PartlyPatchedError,
    WrongBaseError,
)

UNCHANGED = ["lm_head.weight", "model.norm.weight"]


@pytest.mark.parametrize("name", CHANGED + UNCHANGED)
def test_one_word_that_differs_is_refused_by_name(
    tmp_path: Path, direction: Direction, name: str
) -> None:
    other = dict(direction.source_tensors)
    other[name] = other[name].copy()
    other[name].view(np.uint16).ravel()[-1] ^= 4
    model = write_model(tmp_path / "other", other, shards=2)
    refused(direction, WrongBaseError, f"not the model .* tensor '{name}'", model)


def test_the_first_tensor_that_differs_is_named(tmp_path: Path, direction: Direction) -> None:
    other = dict(direction.source_tensors)
    for name in (CHANGED[3], UNCHANGED[0], CHANGED[2]):
        other[name] = nudge(other[name], 0.01, 1)
    model = write_model(tmp_path / "other", other)
    refused(direction, WrongBaseError, CHANGED[2], model)


def test_tensors_missing_extra_reshaped_or_of_another_dtype(
    tmp_path: Path, direction: Direction
) -> None:
    own = dict(direction.source_tensors)
    fewer = {name: value for name, value in own.items() if name != CHANGED[1]}
    cases = {
        f"'{CHANGED[1]}': the model does not have it": fewer,
        "'extra': the patch's base does not have it": own | {"extra": own[CHANGED[0]]},
        r"BF16 \[100, 50\].*BF16 \[50, 100\]": own | {CHANGED[0]: own[CHANGED[0]].reshape(100, 50)},
        r"it is F16": own | {CHANGED[0]: own[CHANGED[0]].view(np.float16)},
    }
    for number, (message, tensors) in enumerate(cases.items()):
        model = write_model(tmp_path / str(number), tensors)
        refused(direction, WrongBaseError, message, model)


def test_the_other_state_has_a_reason_of_its_own(direction: Direction) -> None:
    expected: tuple[type[Exception], str] = (AlreadyPatchedError, "already holds")
    if direction.name == "revert":
        expected = NotPatchedError, "it is the base already"
    refused(direction, *expected, direction.target)


def test_a_model_partly_patched_by_shards_is_refused(tmp_path: Path, direction: Direction) -> None:
    for number, shard in enumerate((FIRST, SECOND)):
        mixed = shutil.copytree(direction.source, tmp_path / f"mixed{number}")
        shutil.copyfile(direction.target / shard, mixed / shard)
        refused(direction, PartlyPatchedError, "4 chunks hold the patch and 4 do not", mixed)


@pytest.mark.parametrize("part", [slice(0, 4096), slice(4096, 5000)])
def test_a_model_partly_patched_by_chunks_is_refused(
    tmp_path: Path, direction: Direction, part: slice
) -> None:
    mixed = dict(direction.source_tensors)
    words = mixed[CHANGED[1]].copy()
    words.ravel()[part] = direction.target_tensors[CHANGED[1]].ravel()[part]
    mixed[CHANGED[1]] = words
    model = write_model(tmp_path / "mixed", mixed)
    refused(direction, PartlyPatchedError, "partly patched", model)


def test_a_model_both_partly_patched_and_wrong_is_wrong(
    tmp_path: Path, direction: Direction
) -> None:
    mixed = dict(direction.source_tensors)
    mixed[CHANGED[0]] = direction.target_tensors[CHANGED[0]]
    mixed[UNCHANGED[1]] = nudge(mixed[UNCHANGED[1]], 0.01, 1)
    model = write_model(tmp_path / "mixed", mixed)
    refused(direction, WrongBaseError, UNCHANGED[1], model)
