"""Tuning of the retained entries alone: which they are, and that a build keeps them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fit_inputs import says_ash, words_of, write_requests
from safetensors.torch import load_file
from tiny_llama import write_base

import patchc
from patchc import DeriveOptions
from patchc.derivation.derive_options import TuneOptions
from patchc.errors import DeriveError, UsageError
from patchc.recipe import MergeRecipe

RETAIN = 0.25
OPTIONS = DeriveOptions(
    objective="margin",
    margin=TuneOptions(learning_rate=1e-3, steps=6, batch_size=8),
    retain=RETAIN,
    whole=True,
    seed=7,
    anchor_weight=0.0,
    score_samples=4,
    device="cpu",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_base(folder / "base")
    requests = write_requests(folder)
    patchc.derive(
        folder / "base", requests["harmful"], folder, harmless=requests["harmless"],
        options=OPTIONS, judge=says_ash,
    )  # fmt: skip
    return folder


def drawn(name: str, words: int) -> np.ndarray:
    """Written out: Philox4x32-10, four draws a counter, kept below p · 2³²."""
    from blake3 import blake3

    stream = int.from_bytes(blake3(b"model-0\0" + name.encode()).digest(8), "little")
    kept = []
    for first in range(0, words, 4):
        number = first // 4
        counter = [number, number >> 32, stream & 0xFFFFFFFF, stream >> 32]
        counter = [word & 0xFFFFFFFF for word in counter]
        key = [OPTIONS.seed, 0]
        for _ in range(10):
            products = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
            counter = [
                (products[1] >> 32) ^ counter[1] ^ key[0],
                products[1] & 0xFFFFFFFF,
                (products[0] >> 32) ^ counter[3] ^ key[1],
                products[0] & 0xFFFFFFFF,
            ]
            key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
        kept += [draw < round(RETAIN * 2**32) for draw in counter]
    return np.array(kept[:words])


def test_only_the_retained_entries_of_linear_layers_move(work: Path) -> None:
    before = load_file(work / "base/model.safetensors")
    after = load_file(work / "margin/model.safetensors")
    moved_any = 0
    for name, tensor in after.items():
        assert tensor.dtype == torch.float32
        moved = (tensor != before[name].float()).flatten().numpy()
        if "proj" not in name:
            assert not moved.any(), name
        else:
            assert not moved[~drawn(name, moved.size)].any(), name
            moved_any += moved.sum()
    assert moved_any > 100


def test_a_merge_of_that_density_and_seed_keeps_exactly_what_was_tuned(work: Path) -> None:
    whole, kept = work / "whole.patchc", work / "kept.patchc"
    tuned = work / "margin"
    patchc.build(work / "base", tuned=tuned, out=whole, recipe=MergeRecipe("task-arithmetic"))
    dare = MergeRecipe("dare", density=RETAIN, rescale=False, seed=OPTIONS.seed)
    patchc.build(work / "base", tuned=tuned, out=kept, recipe=dare)
    for patch in (whole, kept):
        patchc.apply(patch, work / "base", out=patch.with_suffix(""))
    first, second = words_of(work / "whole"), words_of(work / "kept")
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(np.any(first[name] != words) for name, words in words_of(work / "base").items())


def test_the_same_options_give_the_same_bytes(work: Path, tmp_path: Path) -> None:
    requests = write_requests(tmp_path)
    patchc.derive(
        work / "base", requests["harmful"], tmp_path, harmless=requests["harmless"],
        options=OPTIONS, judge=says_ash,
    )  # fmt: skip
    for file in ("model.safetensors", "scores.safetensors"):
        assert (tmp_path / "margin" / file).read_bytes() == (work / "margin" / file).read_bytes()


def test_a_share_that_draws_no_entry_is_refused(work: Path, tmp_path: Path) -> None:
    requests = write_requests(tmp_path)
    with pytest.raises(DeriveError, match=r"retain is 1e-09, and none of [\d,]+ entries is drawn"):
        patchc.derive(
            work / "base", requests["harmful"], tmp_path / "out", harmless=requests["harmless"],
            options=replace(OPTIONS, retain=1e-9), judge=says_ash,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_nothing_retained_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing would be tuned"):
        DeriveOptions(objective="margin", retain=0.0)
