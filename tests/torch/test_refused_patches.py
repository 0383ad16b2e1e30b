"""Patches that a loaded model cannot take, and damaged ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from additive_inputs import write_inputs
from forged_patch import parts_of
from live_states import Update, bits, state_of, stored
from second_reader import read_index

import patchc
import patchc.torch as live
from patchc.errors import (
    PatchcError,
    PatchFormatError,
    ResultMismatchError,
    UnsupportedInputError,
)

STREAMS: list[Callable[..., Iterator[Any]]] = [live.patched_tensors, live.sparse_updates]


def test_an_update_is_refused_with_what_to_do(tmp_path: Path, attention: Update) -> None:
    (attention.tuned / "config.json").write_text("{}")
    patch = tmp_path / "release.patchc"
    patchc.diff(attention.base, attention.tuned, out=patch)
    for call in (live.apply_, live.revert_, live.prepare):
        with pytest.raises(UnsupportedInputError, match=r"feature update.*weights-only"):
            call(state_of(attention.before), patch)
    for stream in STREAMS:
        with pytest.raises(UnsupportedInputError, match="feature update"):
            next(stream(patch, attention.base))


def test_an_additive_patch_is_refused_with_what_to_do(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    patch = tmp_path / "fix.patchc"
    patchc.build(**inputs.paths, out=patch, values="additive")
    with pytest.raises(UnsupportedInputError, match=r"additive values.*apply it to the checkpoint"):
        live.apply_(state_of(inputs.base), patch)
    for stream in STREAMS:
        with pytest.raises(UnsupportedInputError, match=r"additive values"):
            next(stream(patch, inputs.paths["base"]))


def test_a_damaged_patch_changes_nothing(tmp_path: Path, attention: Update) -> None:
    content = bytearray(attention.patch.read_bytes())
    content[40] ^= 1
    damaged = tmp_path / "damaged.patchc"
    damaged.write_bytes(content)
    state = state_of(attention.before)
    with pytest.raises(PatchFormatError, match="damaged"):
        live.apply_(state, damaged)
    assert bits(state) == stored(attention.base)
    for stream in STREAMS:
        with pytest.raises(PatchFormatError, match="damaged"):
            list(stream(damaged, attention.base))


@pytest.mark.parametrize(
    ("digest", "error", "match"),
    [
        ("bodies_digest", PatchFormatError, "the digest over all chunk bodies"),
        ("base_digest", ResultMismatchError, "the model's digest does not"),
        ("result_digest", ResultMismatchError, "the model's digest does not"),
    ],
)
def test_long_digests_stand_behind_short_ones(
    attention: Update, digest: str, error: type[PatchcError], match: str
) -> None:
    """Every short digest fits, as a forger of theirs would see to, and the long one does not."""
    parts = parts_of(attention.patch.read_bytes())
    attention.patch.write_bytes(parts.with_columns(**{digest: bytes(31) + b"\1"}).assemble())
    state = state_of(attention.before)
    for base in (None, attention.base):
        with pytest.raises(error, match=match):
            live.apply_(state, attention.patch, base=base)
    assert bits(state) == stored(attention.base)
    for stream in STREAMS:
        with pytest.raises(error, match=match):
            list(stream(attention.patch, attention.base))


def test_another_outcome_than_the_promised_one_is_refused(attention: Update) -> None:
    parts = parts_of(attention.patch.read_bytes())
    results = [bytes(8)] * len(read_index(parts.index, False).result_digests)
    attention.patch.write_bytes(parts.with_columns(result_digests=results).assemble())
    state = state_of(attention.before)
    with pytest.raises(ResultMismatchError, match=r"tensor 'embed', chunk 0: the outcome"):
        live.apply_(state, attention.patch)
    assert bits(state) == stored(attention.base)
    for stream in STREAMS:
        with pytest.raises(ResultMismatchError, match="chunk 0: the outcome"):
            list(stream(attention.patch, attention.base))
