"""Models, patches and options that a run in place refuses, and its commands."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from additive_inputs import write_inputs
from blake3 import blake3
from command_line import run
from forged_patch import parts_of
from in_place_directions import CHANGED, CHUNKS, FIRST, SECOND, Direction, partly_changed, refused
from second_reader import read_index
from tiny_checkpoints import tree, write_model

import patchc
from patchc.errors import (
    PatchFormatError,
    ResultMismatchError,
    StorageError,
    UnsupportedInputError,
    UsageError,
    WrongBaseError,
)
from patchc.hashing import bodies_digest


@pytest.mark.parametrize("name", [CHANGED[2], "lm_head.weight"])
@pytest.mark.parametrize("mixed", [False, True])
def test_another_model_is_refused(
    tmp_path: Path, direction: Direction, name: str, mixed: bool
) -> None:
    model = partly_changed(direction, tmp_path / "mixed") if mixed else direction.source
    with patchc.open_patch(direction.patch) as patch:
        assert name in patch.index.tensors
    _flip_last_word(model, name)
    refused(direction, WrongBaseError, f"tensor '{name}'.*Nothing was written", model)


def _flip_last_word(model: Path, name: str) -> None:
    for shard in model.glob("*.safetensors"):
        content = bytearray(shard.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        entry = json.loads(content[8:start]).get(name)
        if entry:
            content[start + entry["data_offsets"][1] - 1] ^= 4
            shard.write_bytes(content)


def test_other_tensors_are_refused(tmp_path: Path, direction: Direction) -> None:
    model = tmp_path / "half.safetensors"
    shutil.copyfile(direction.source / FIRST, model)
    refused(direction, WrongBaseError, "the model does not have it", model)


def test_a_damaged_patch_is_found_before_anything_is_written(direction: Direction) -> None:
    with patchc.open_patch(direction.patch) as opened:
        offset = opened.index.chunk(opened.index.tensors[CHANGED[3]].chunks[1]).offset
    content = bytearray(direction.patch.read_bytes())
    content[offset + 1] ^= 0x10
    direction.patch.write_bytes(content)
    refused(direction, PatchFormatError, f"{CHANGED[3]}.*chunk 1")


@pytest.mark.usefixtures("a_chunk_a_group")
def test_a_promise_that_does_not_hold(direction: Direction) -> None:
    """A forged digest of one chunk's outcome: that chunk is not written, and the rest goes back."""
    before, forged = tree(direction.source), direction.patch.parent / "forged.patchc"
    parts = parts_of(direction.patch.read_bytes())
    column = "result_digests" if direction.name == "apply" else "base_digests"
    index = read_index(parts.index, is_update=False)
    digests = list(getattr(index, column))
    digests[5] = bytes(8)
    forged.write_bytes(parts.with_columns(**{column: digests}).assemble())
    bad = Direction(direction.name, forged, direction.source, direction.target)
    with pytest.raises(ResultMismatchError, match=r"tensor .*the outcome is not the promised one"):
        bad.run(threads=1)
    assert tree(direction.source) != before
    direction.back(direction.source)
    assert tree(direction.source) == before


@pytest.mark.usefixtures("a_chunk_a_group")
@pytest.mark.parametrize("number", [1, 5])
def test_a_body_that_does_not_decode(direction: Direction, number: int) -> None:
    """A forged patch stops half way; what it changed goes back, which needs no body of the rest."""
    before, forged = tree(direction.source), direction.patch.parent / "forged.patchc"
    parts = parts_of(direction.patch.read_bytes())
    index = read_index(parts.index, is_update=False)
    cuts = np.cumsum([0, *index.lengths])
    bodies = [parts.bodies[a:b] for a, b in pairwise(cuts)]
    bodies[number] = bytes([255]) * len(bodies[number])
    digests = [blake3(body).digest() for body in bodies]
    parts = parts.but(bodies=b"".join(bodies)).with_columns(
        body_digests=[digest[:8] for digest in digests],
        bodies_digest=bodies_digest(b"".join(digests)),
    )
    forged.write_bytes(parts.assemble())
    bad = Direction(direction.name, forged, direction.source, direction.target)
    with pytest.raises(PatchFormatError, match=r"chunk \d.*may be partly patched"):
        bad.run(threads=1)
    assert tree(direction.source) != before
    bad.back(direction.source)
    assert tree(direction.source) == before


def _with_both(direction: Direction) -> Any:
    return direction.run(out=direction.patch.parent / "out")


def _with_neither(direction: Direction) -> Any:
    verb = patchc.apply if direction.name == "apply" else patchc.revert
    return verb(direction.patch, direction.source)


def _without_threads(direction: Direction) -> Any:
    return direction.run(threads=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (_with_both, "exclude each other"),
        (_with_neither, "there is no output"),
        (_without_threads, "threads"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    direction: Direction, call: Callable[[Direction], Any], message: str
) -> None:
    before = tree(direction.patch.parent)
    with pytest.raises(UsageError, match=message):
        call(direction)
    assert tree(direction.patch.parent) == before


def test_updates_of_more_than_values(tmp_path: Path, direction: Direction) -> None:
    (direction.target / "config.json").write_text('{"model_type": "other"}\n')
    sides = [direction.source, direction.target][:: 1 if direction.name == "apply" else -1]
    files = tmp_path / "files.patchc"
    patchc.diff(*sides, out=files)
    changed = Direction(direction.name, files, direction.source, direction.target)
    refused(changed, UnsupportedInputError, r"'config\.json'.*-o")
    one, two = np.zeros(3, np.float32), np.zeros(4, np.float32)
    grown = [write_model(tmp_path / f"g{len(w)}", {"w": w}) for w in (one, two)]
    patchc.diff(*grown, out=tmp_path / "grown.patchc")
    changed = Direction(direction.name, tmp_path / "grown.patchc", grown[0], grown[1])
    refused(changed, UnsupportedInputError, "tensor 'w'.*-o")


def test_a_file_that_may_not_be_written(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two files: the first is not written either."""
    plain = os.open

    def refuse(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_WRONLY and str(path).endswith(SECOND):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return plain(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    refused(direction, StorageError, f"cannot write to .*{SECOND}: Permission denied")


def test_no_partial_files_and_no_new_names(direction: Direction) -> None:
    names = sorted(path.name for path in direction.patch.parent.rglob("*"))
    direction.run()
    assert sorted(path.name for path in direction.patch.parent.rglob("*")) == names


def test_the_commands_change_and_restore_in_place(direction: Direction) -> None:
    wanted = tree(direction.target)
    command = (direction.name, direction.patch, direction.source, "--in-place")
    code, out, _ = run(*command, "--dry-run")
    assert code == 0
    assert f"would {direction.name} in place" in out
    code, out, _ = run(*command, "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["chunks"], report["chunks_kept"], report["nbytes"]) == (CHUNKS, 0, 40_000)
    assert report["files"] == [str(direction.source / name) for name in (FIRST, SECOND)]
    assert tree(direction.source) == wanted
    code, out, _ = run(*command)
    assert code == 0
    assert "nothing to do" in out
    code, _, err = run(*command, "-o", direction.patch.parent / "out")
    assert code == UsageError.exit_code
    assert "exclude each other" in err


def test_a_partly_patched_model_by_commands(tmp_path: Path, direction: Direction) -> None:
    mixed = partly_changed(direction, tmp_path / "mixed")
    code, _, err = run("verify", direction.patch, mixed)
    assert code == 10
    assert "run it again" in err
    code, out, _ = run(direction.name, direction.patch, mixed, "--in-place", "--threads", 1)
    assert code == 0
    assert f"{CHUNKS // 2} were done before" in out
    assert tree(mixed) == tree(direction.target)


def test_an_interrupted_command_says_how_to_go_on(
    direction: Direction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdatasync", interrupt)
    code, _, err = run(direction.name, direction.patch, direction.source, "--in-place")
    assert code == 130
    assert "run again, goes on" in err
    assert "nothing was left" not in err


def test_additive_values_are_refused(tmp_path: Path, direction: Direction) -> None:
    inputs = write_inputs(tmp_path / "additive")
    patch = tmp_path / "additive.patchc"
    parts = {part: inputs.paths[part] for part in ("se", "osm")}
    patchc.build(inputs.paths["base"], **parts, out=patch, values="additive")
    model = inputs.paths["base"]
    message = "add them twice" if direction.name == "apply" else "cannot be taken back"
    refused(Direction(direction.name, patch, model, model), UnsupportedInputError, message)
