"""Patches and models that cannot be folded, and damaged or forged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_inputs import small_inputs
from forged_patch import parts_of
from patch_chains import NORM, STILL, UP, Chain, chain_of, refuse, with_any_codec
from second_reader import read_index
from tiny_checkpoints import normal, nudge, write_model

import patchc
from patchc.errors import (
    MismatchError,
    OutputError,
    PatchFormatError,
    ResultMismatchError,
    UnsupportedInputError,
    WrongBaseError,
)


@pytest.mark.parametrize("order", [(0, 2), (1, 0), (2, 1), (0, 0), (0, 1, 0)])
def test_patches_that_do_not_meet(tmp_path: Path, chain: Chain, order: tuple[int, ...]) -> None:
    patches = [chain.patches[i] for i in order]
    pair = rf"{patches[-1].name} does not follow \S*{patches[-2].name}: tensor '{UP}', chunk 0"
    refuse(tmp_path, patches, MismatchError, pair)
    refuse(tmp_path, patches, MismatchError, pair, base=chain.models[0])


def test_an_untouched_tensor_tells_patches_apart(tmp_path: Path, chain: Chain) -> None:
    states = [
        {UP: normal((90, 100), "BF16", 1), NORM: normal((3, 4096), "F32", 2),
         STILL: nudge(normal((7,), "F16", 3), share, 1)}
        for share in (1.0, 1.0)
    ]  # fmt: skip
    other = chain_of(tmp_path / "other", states)
    same = tmp_path / "same.patchc"
    patchc.diff(chain.models[0], chain.models[0], out=same, chunk_bits=12)
    message = f"follow .*tensor '{STILL}' has another digest"
    refuse(tmp_path, [same, *other.patches], MismatchError, message)


def test_models_that_only_their_digest_tells_apart(tmp_path: Path) -> None:
    """One patch changes a chunk that the next one does not touch."""
    base = normal((2, 4096), "BF16", 1)
    first, second = base.copy(), base.copy()
    first[0], second[1] = nudge(base[0], 0.1, 1), nudge(base[1], 0.1, 2)
    made = chain_of(tmp_path, [{"t": base}, {"t": first}])
    branch = chain_of(tmp_path / "branch", [{"t": base}, {"t": second}])
    message = "1.patchc does not follow .*the digests of the models differ"
    refuse(tmp_path, [*made.patches, *branch.patches], MismatchError, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": normal((7,), "F16", 3)}, "it has tensor 'x'"),
        ({STILL: normal((7, 1), "F16", 3)}, rf"tensor '{STILL}' is F16 \[7, 1\], and F16 \[7\]"),
        ({STILL: normal((7,), "BF16", 3)}, rf"tensor '{STILL}' is BF16 \[7\], and F16 \[7\]"),
        (None, rf"it does not have tensor '{STILL}'"),
    ],
)
def test_patches_of_other_tensors_are_refused(
    tmp_path: Path, chain: Chain, change: dict[str, Any] | None, message: str
) -> None:
    state = {UP: normal((90, 100), "BF16", 1), NORM: normal((3, 4096), "F32", 2)}
    if change is not None:
        state |= {STILL: normal((7,), "F16", 3)} | change
    other = chain_of(tmp_path / "other", [state, state])
    refuse(tmp_path, [chain.patches[0], *other.patches], MismatchError, message)


def test_patches_of_other_chunk_sizes_are_refused(tmp_path: Path, chain: Chain) -> None:
    other = tmp_path / "other.patchc"
    patchc.diff(chain.models[1], chain.models[2], out=other, chunk_bits=13)
    refuse(tmp_path, [chain.patches[0], other], MismatchError, "chunks of 8192 words .* 4096")


def test_patches_that_add_a_tensor_are_refused_by_name(tmp_path: Path, chain: Chain) -> None:
    state = {UP: normal((90, 100), "BF16", 1)}
    before = write_model(tmp_path / "before", state)
    after = write_model(tmp_path / "after", state | {NORM: normal((4,), "F32", 2)})
    grown = tmp_path / "grown.patchc"
    patchc.diff(before, after, out=grown)
    for pair in ([grown, chain.patches[0]], [chain.patches[0], grown]):
        message = rf"grown.patchc changes more .*\({NORM}, .*--weights-only"
        refuse(tmp_path, pair, UnsupportedInputError, message)


def test_additive_patches_are_refused_by_name(tmp_path: Path, chain: Chain) -> None:
    additive = tmp_path / "additive.patchc"
    patchc.build(**small_inputs().write(tmp_path / "inputs"), out=additive, values="additive")
    for pair in ([additive, chain.patches[0]], [chain.patches[0], additive]):
        refuse(tmp_path, pair, UnsupportedInputError, "additive.patchc holds additive values")


def test_a_base_that_is_another_model(tmp_path: Path, chain: Chain) -> None:
    message = f"0-1.patchc was made for: tensor '{UP}': its chunk 0"
    refuse(tmp_path, chain.patches, WrongBaseError, message, base=chain.models[1])
    state = {UP: normal((90, 100), "BF16", 1), NORM: normal((3, 4096), "F32", 2)}
    untouched = write_model(tmp_path / "untouched", state | {STILL: np.zeros(7, np.float16)})
    message = f"tensor '{STILL}': its values differ"
    refuse(tmp_path, chain.patches, WrongBaseError, message, base=untouched)
    fewer = write_model(tmp_path / "fewer", state)
    refuse(tmp_path, chain.patches, WrongBaseError, f"tensor '{STILL}'", base=fewer)


def test_outputs_that_are_refused(chain: Chain) -> None:
    for out in (chain.patches[1], chain.models[0] / "x.patchc", chain.models[0]):
        with pytest.raises(OutputError):
            patchc.fold(chain.patches, out=out, base=chain.models[0])
    assert not (chain.models[0] / "x.patchc").exists()


def test_a_damaged_body_is_refused(tmp_path: Path, chain: Chain) -> None:
    second = chain.patches[1]
    data = bytearray(second.read_bytes())
    data[16] ^= 1
    second.write_bytes(data)
    message = f"1-2.patchc: tensor '{UP}', chunk 0"
    refuse(tmp_path, chain.patches, PatchFormatError, message)
    refuse(tmp_path, chain.patches, PatchFormatError, message, base=chain.models[0])


def swap_digests(patch: Path, **columns: Any) -> None:
    parts = parts_of(patch.read_bytes())
    patch.write_bytes(parts.with_columns(**columns).assemble())


@with_any_codec
def test_bodies_replaced_under_their_short_digests(
    tmp_path: Path, chain: Chain, with_base: bool
) -> None:
    """The digest over all bodies is another: only reading all of them shows it."""
    swap_digests(chain.patches[2], bodies_digest=bytes(32))
    base = chain.models[0] if with_base else None
    message = "2-3.patchc: the digest over all chunk bodies"
    refuse(tmp_path, chain.patches, PatchFormatError, message, base=base)


def test_steps_that_contradict_their_digests(tmp_path: Path, chain: Chain) -> None:
    """Forged so that the chain's ends agree in one chunk, and the steps say otherwise."""
    first, last = (read_index(parts_of(p.read_bytes()).index) for p in chain.patches[::2])
    swap_digests(chain.patches[2], result_digests=[first.base_digests[0], *last.result_digests[1:]])
    message = "2-3.patchc: tensor 'layers.0.up.weight', chunk 0: the steps .* contradict"
    refuse(tmp_path, chain.patches, ResultMismatchError, message)
    message = "2-3.patchc: tensor 'layers.0.up.weight', chunk 0: the outcome"
    refuse(tmp_path, chain.patches, ResultMismatchError, message, base=chain.models[0])


@pytest.mark.parametrize("column", ["base_digest", "result_digest"])
def test_a_forged_model_digest_is_refused(tmp_path: Path, chain: Chain, column: str) -> None:
    patch = chain.patches[0 if column == "base_digest" else 2]
    swap_digests(patch, **{column: bytes(32)})
    message = f"{patch.name}: every chunk matches and the model's digest does not"
    refuse(tmp_path, chain.patches, ResultMismatchError, message, base=chain.models[0])
    patchc.fold(chain.patches, out=tmp_path / "forged.patchc")
    with pytest.raises(ResultMismatchError):
        patchc.apply(tmp_path / "forged.patchc", chain.models[0], out=tmp_path / "out")
