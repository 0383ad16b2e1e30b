"""What a patch changes as sparse updates: exactly the words that differ, bound to the base."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from live_states import Update, bits, make_update
from loading_engines import RANKS, engine_of, engine_tensors, load_updates
from numpy.typing import NDArray
from tiny_checkpoints import Raw, normal, nudge, read_model, write_model

import patchc.torch as live
from patchc.errors import UnsupportedInputError, UsageError, WrongBaseError
from patchc.torch import SparseUpdate

CHUNK = 1 << 12
SCATTERED = {"a.weight", "b.weight", "c.weight", "f.scale", "i.double"}
"""Of the fixture's tensors those of 16, 32 and 64 bits; the others that change come whole."""


def words(array: NDArray) -> NDArray:
    return array.reshape(-1).view(f"u{array.itemsize}")


def words_of(update: SparseUpdate) -> NDArray:
    size = update.values.element_size()
    return update.values.view(torch.uint8).numpy().view(f"u{size}")


def by_name(updates: Sequence[SparseUpdate]) -> dict[str, list[SparseUpdate]]:
    return {name: list(own) for name, own in groupby(updates, key=lambda one: one.name)}


@pytest.mark.parametrize("side", ["base", "tuned"])
@pytest.mark.parametrize("target", ["result", "base"])
def test_exactly_the_words_that_differ_come(update: Update, side: str, target: str) -> None:
    """Whichever side the folder is on."""
    folder = update.base if side == "base" else update.tuned
    new, old = (
        (update.after, update.before) if target == "result" else (update.before, update.after)
    )
    updates = by_name(list(live.sparse_updates(update.patch, folder, target=target, threads=2)))
    differing = [name for name in new if not np.array_equal(words(new[name]), words(old[name]))]
    assert list(updates) == [name for name in read_model(update.base) if name in differing]
    for name, own in updates.items():
        assert {(one.shape, one.values.ndim) for one in own} == {(new[name].shape, 1)}
        assert {one.dtype for one in own} == {one.values.dtype for one in own}
        if name not in SCATTERED:
            assert [one.positions for one in own] == [None]
            assert words_of(own[0]).tolist() == words(new[name]).tolist()
            continue
        places = [one.positions.numpy() for one in own]
        assert {len({*(at // CHUNK)}) for at in places} == {1}
        at = np.concatenate(places)
        assert at.dtype == np.int32
        assert at.tolist() == np.flatnonzero(words(new[name]) != words(old[name])).tolist()
        assert np.concatenate([*map(words_of, own)]).tolist() == words(new[name])[at].tolist()


def test_an_engine_that_fuses_and_shards_gets_what_the_patched_folder_has(tmp_path: Path) -> None:
    before = engine_tensors()
    update = make_update(tmp_path, before, {n: nudge(one, 0.1, 3) for n, one in before.items()})
    for rank in range(RANKS):
        engine, base = engine_of(update.base, rank), engine_of(update.base, rank)
        load_updates(engine, live.sparse_updates(update.patch, update.base))
        assert bits(dict(engine.named_buffers())) == bits(
            dict(engine_of(update.tuned, rank).named_buffers())
        )
        load_updates(engine, live.sparse_updates(update.patch, update.base, target="base"))
        assert bits(dict(engine.named_buffers())) == bits(dict(base.named_buffers()))


def test_a_tensor_with_a_new_nan_comes_whole_and_an_old_nan_is_no_matter(tmp_path: Path) -> None:
    before = {name: normal((3, CHUNK), "BF16", i) for i, name in enumerate("abc")}
    before["a"][0, 5] = before["b"][2, 7] = np.nan
    after = {name: nudge(one, 0.01, 1) for name, one in before.items()}
    after["a"][0, 5], after["b"][2, 7], after["c"][1, 9] = before["a"][0, 5], 1, np.nan
    update = make_update(tmp_path, before, after)
    for target, whole, new in (("result", "c", after), ("base", "b", before)):
        updates = by_name(list(live.sparse_updates(update.patch, update.base, target=target)))
        assert list(updates) == ["a", "b", "c"]
        sparse = [one for name in {*"abc"} - {whole} for one in updates[name]]
        assert len(sparse) == 6
        assert not any(one.values.isnan().any() for one in sparse)
        assert [one.positions for one in updates[whole]] == [None]
        assert words_of(updates[whole][0]).tolist() == words(new[whole]).tolist()


def test_a_sign_of_zero_and_a_scalar_are_changes(tmp_path: Path) -> None:
    before = {"scale": np.array(2, np.float32), "zero": np.zeros(9, ml_dtypes.bfloat16)}
    after = {"scale": np.array(3, np.float32), "zero": np.zeros(9, ml_dtypes.bfloat16)}
    after["zero"][4] = -0.0
    update = make_update(tmp_path, before, after)
    scale, zero = live.sparse_updates(update.patch, update.base)
    assert (scale.shape, scale.positions.tolist(), scale.values.tolist()) == ((), [0], [3])
    assert zero.positions.tolist() == [4]
    assert zero.values.signbit().tolist() == [True]


def test_positions_are_of_64_bits_where_32_do_not_reach(
    update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchc.torch.sparse._INT32_WORDS", 6999)
    updates = by_name(list(live.sparse_updates(update.patch, update.base)))
    kinds = {"a.weight": torch.int64, "b.weight": torch.int32}
    assert {name: updates[name][-1].positions.dtype for name in kinds} == kinds


def test_values_are_on_the_cpu_and_stay_when_the_loader_stops(update: Update) -> None:
    with torch.device("meta"):
        stream = live.sparse_updates(update.patch, update.base)
        first = next(stream)
        stream.close()
    assert {first.values.device.type, first.positions.device.type} == {"cpu"}
    assert words_of(first).tolist() == words(update.after[first.name])[first.positions].tolist()


def test_a_packed_tensor_that_changes_is_refused_before_anything_comes(tmp_path: Path) -> None:
    packed = {name: Raw("F4", (2, 8), bytes(range(8))) for name in ("kept", "packed")}
    before = {"a": normal((9,), "BF16", 0), **packed}
    after = {"a": nudge(before["a"], 0.9, 1), **packed}
    update = make_update(tmp_path / "other", before, after)
    assert [one.name for one in live.sparse_updates(update.patch, update.base)] == ["a"]
    update = make_update(tmp_path, before, {**after, "packed": Raw("F4", (2, 8), bytes(8))})
    with pytest.raises(UnsupportedInputError, match="'packed' has dtype F4"):
        next(live.sparse_updates(update.patch, update.base))


def test_another_base_and_an_unknown_side_are_refused(tmp_path: Path, update: Update) -> None:
    other = write_model(
        tmp_path / "other", {**update.before, "k.fixed": update.before["k.fixed"] * 2}
    )
    with pytest.raises(WrongBaseError, match=r"k.fixed"):
        list(live.sparse_updates(update.patch, other))
    with pytest.raises(UsageError, match="target is 'tuned'; it must be result or base"):
        next(live.sparse_updates(update.patch, update.base, target="tuned"))
