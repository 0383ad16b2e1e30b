"""Parameters that hold tensors fused, cut, tied, stacked or shared."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_states import State, Update, bits, make_update, state_of, stored, to_torch
from numpy.typing import NDArray
from tiny_checkpoints import normal, nudge

import patchc.torch as live
from patchc.errors import (
    PartlyPatchedError,
    PatchcError,
    UnsupportedInputError,
    UsageError,
    WrongBaseError,
)
from patchc.torch import Slice

FUSED = {"qkv.weight": [Slice("q.weight"), Slice("k.weight"), Slice("v.weight")]}


def fused(tensors: Mapping[str, NDArray]) -> State:
    qkv = np.concatenate([tensors[f"{name}.weight"] for name in "qkv"])
    return {"qkv.weight": to_torch(qkv), "embed": to_torch(tensors["embed"])}


@pytest.mark.parametrize("with_base", [False, True])
def test_fused_parameters_change_and_return(attention: Update, with_base: bool) -> None:
    state = fused(attention.before)
    base = attention.base if with_base else None
    live.apply_(state, attention.patch, mapping=FUSED, base=base)
    assert bits(state) == bits(fused(attention.after))
    live.revert_(state, attention.patch, mapping=FUSED, base=base)
    assert bits(state) == bits(fused(attention.before))


@pytest.mark.parametrize("verify", [True, False])
def test_shards_of_two_ranks_with_a_padded_vocabulary(attention: Update, verify: bool) -> None:
    def shard(tensors: Mapping[str, NDArray], rank: int) -> State:
        heads = [np.array_split(tensors[f"{name}.weight"], 2)[rank] for name in "qkv"]
        words = tensors["embed"][80 * rank : 80 * rank + 80]
        padding = np.zeros((80 - len(words), 64), words.dtype)
        embed = np.concatenate([words, padding])
        return {"qkv": to_torch(np.concatenate(heads)), "vocabulary": to_torch(embed)}

    for rank in (0, 1):
        state = shard(attention.before, rank)
        mapping = {
            "qkv": [
                Slice("q.weight", (32 * rank, 32 * rank + 32)),
                Slice("v.weight", (16 * rank, 16 * rank + 16), at=48),
                Slice("k.weight", (16 * rank, 16 * rank + 16), at=32),
            ],
            "vocabulary": [Slice("embed", (80 * rank, min(80 * rank + 80, 150)))],
        }
        options: Any = {"base": attention.base, "mapping": mapping, "shard": True, "verify": verify}
        live.apply_(state, attention.patch, **options)
        assert bits(state) == bits(shard(attention.after, rank))
        live.revert_(state, attention.patch, **options)
        assert bits(state) == bits(shard(attention.before, rank))
        if verify:
            state["qkv"].view(torch.int16)[50, 3] ^= 1
            with pytest.raises(
                WrongBaseError,
                match=r"'v.weight': chunk 0 of parameter 'qkv' is not that of .*base",
            ):
                live.apply_(state, attention.patch, **options)


@settings(max_examples=25)
@given(data=st.data(), rows=st.integers(1, 90), codec=st.sampled_from(["auto", "rice"]))
def test_any_cut_of_a_tensor_into_parameters(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rows: int, codec: str
) -> None:
    """Parts in any order, some in one parameter and some in another; chunks of 4096 words."""
    before = {"w": normal((rows, 101), "BF16", rows)}
    after = {"w": nudge(before["w"], 0.1, rows)}
    update = make_update(tmp_path_factory.mktemp("cut"), before, after, codec)
    cuts = sorted(data.draw(st.sets(st.integers(0, rows), max_size=5)) | {0, rows})
    ranges = data.draw(st.permutations(list(pairwise(cuts))))
    mapping: dict[str, list[Slice]] = {"one": [], "two": []}
    for bounds in ranges:
        mapping[data.draw(st.sampled_from(["one", "two"]))].append(Slice("w", bounds))
    state, expected = (
        {
            name: to_torch(
                np.concatenate([t["w"][:0], *(t["w"][slice(*p.rows or ())] for p in parts)])
            )
            for name, parts in mapping.items()
        }
        for t in (before, after)
    )
    live.apply_(state, update.patch, mapping=mapping)
    assert bits(state) == bits(expected)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"qkv": []}, "no parameter 'qkv'"),
        ({"qkv.weight": "q.weight"}, r"takes a list of slices.* it has 'q.weight'"),
        ({"qkv.weight": ["q.weight"]}, r"takes a list of slices.* it has \['q.weight'\]"),
        ({"qkv.weight": Slice("q.weight")}, r"takes a list of slices.*Slice\(tensor='q.weight'"),
        ({"qkv.weight": [Slice("w.weight")]}, "'qkv.weight': the base .* has no 'w.weight'"),
        ({"qkv.weight": [Slice("q.weight", (0, 65))]}, "rows 0 to 65"),
        ({"qkv.weight": [Slice("q.weight", (9, 3))]}, "rows 9 to 3"),
        ({"qkv.weight": [Slice("q.weight", at=65)]}, "at row 65"),
        ({"qkv.weight": [Slice("q.weight", at=-1)]}, "at row -1"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(
    attention: Update, mapping: dict[str, Any], message: str
) -> None:
    state = fused(attention.before)
    with pytest.raises(UsageError, match=message):
        live.apply_(state, attention.patch, mapping=mapping)


@pytest.mark.parametrize(
    "given",
    [{"rows": one} for one in (5, (1,), (), (0.0, 64.0), range(64), slice(0, 64))] + [{"at": "0"}],
    ids=repr,
)
def test_a_slice_has_two_rows_and_one_place(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"'q.weight': rows is .*such as \(0, 64\)"):
        Slice("q.weight", **given)
    assert Slice("q.weight", np.array([0, 64]).tolist(), np.int64(3)).at == 3


def test_rows_of_another_width_are_refused(attention: Update) -> None:
    mapping = FUSED | {"embed": [Slice("q.weight")]}
    with pytest.raises(WrongBaseError, match=r"'embed' .* cannot hold rows of 'q.weight'"):
        live.apply_(fused(attention.before), attention.patch, mapping=mapping)


def test_rows_that_nothing_holds_are_refused_unless_it_is_a_shard(attention: Update) -> None:
    mapping = {"qkv.weight": [*FUSED["qkv.weight"][:2], Slice("v.weight", (0, 31))]}
    with pytest.raises(WrongBaseError, match=r"not hold tensor 'v.weight'.*shard=True"):
        live.apply_(fused(attention.before), attention.patch, mapping=mapping)
    with pytest.raises(UsageError, match="shard=True needs base="):
        live.apply_(fused(attention.before), attention.patch, mapping=mapping, shard=True)
    with pytest.raises(UsageError, match="verify=False needs base="):
        live.apply_(state_of(attention.before), attention.patch, verify=False)


def test_a_tensor_held_twice_needs_a_base_and_both_change(attention: Update) -> None:
    state = state_of(attention.before)
    state["head"] = state["embed"].clone()
    mapping = {"head": [Slice("embed")]}
    with pytest.raises(UnsupportedInputError, match=r"'embed' is held twice.*'head'.*base="):
        live.apply_(state, attention.patch, mapping=mapping)
    live.apply_(state, attention.patch, mapping=mapping, base=attention.base)
    assert bits({"embed": state["head"]}) == bits({"embed": state["embed"]})
    assert bits({"embed": state["head"]})["embed"] == stored(attention.tuned)["embed"]
    state["head"].copy_(to_torch(attention.before["embed"]))
    with pytest.raises(PartlyPatchedError):
        live.revert_(state, attention.patch, mapping=mapping, base=attention.base)


def test_two_names_of_one_memory_change_once(tmp_path: Path) -> None:
    shared = normal((90, 60), "BF16", 1)
    before = {"embed": shared, "head": shared}
    after = dict.fromkeys(before, nudge(shared, 0.1, 1))
    update = make_update(tmp_path, before, after)
    state = {"embed": to_torch(shared)}
    state["head"] = state["embed"].view(90, 60)
    for base in (None, update.base):
        live.apply_(state, update.patch, base=base)
        assert bits(state) == stored(update.tuned)
        live.revert_(state, update.patch, base=base)
        assert bits(state) == stored(update.base)


def test_tied_parameters_that_change_apart_are_refused(tmp_path: Path) -> None:
    shared = normal((90, 60), "BF16", 1)
    before = {"embed": shared, "head": shared}
    update = make_update(tmp_path, before, {"embed": shared, "head": nudge(shared, 0.1, 1)})
    state = {"embed": to_torch(shared)}
    state["head"] = state["embed"]
    with pytest.raises(UnsupportedInputError, match=r"'embed' and 'head' are tied.*apart"):
        live.apply_(state, update.patch)
    assert bits(state) == stored(update.base)
    state["head"] = state["embed"].clone()
    live.apply_(state, update.patch)
    assert bits(state) == stored(update.tuned)


def test_views_into_one_another_are_refused(attention: Update) -> None:
    state = fused(attention.before)
    state["q.weight"] = state["qkv.weight"][:64]
    found = bits(state)
    with pytest.raises(UnsupportedInputError, match=r"parameters .* share a part of their memory"):
        live.apply_(
            state, attention.patch, base=attention.base,
            mapping={"qkv.weight": [Slice("k.weight", at=63), Slice("v.weight")]},
            shard=True,
        )  # fmt: skip
    assert bits(state) == found


def test_parameters_that_are_not_plain_memory_are_refused(attention: Update) -> None:
    class Wrapped(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, *_: object) -> Any:
            raise AssertionError

    plain = state_of(attention.before)
    wrapped = torch.Tensor._make_wrapper_subclass(Wrapped, (64, 96), dtype=torch.bfloat16)
    cases = {
        "is a Wrapped, not plain memory": wrapped,
        r"row-major order \(shape \[64, 96\], strides \[1, 64\]": plain["q.weight"]
        .t()
        .contiguous()
        .t(),
        "is on device meta, without memory; load": plain["q.weight"].to("meta"),
        "is a negated or conjugated view": torch._neg_view(-plain["q.weight"]),
    }
    for message, tensor in cases.items():
        with pytest.raises(UnsupportedInputError, match=f"'q.weight' .*{message}"):
            live.apply_({**plain, "q.weight": tensor}, attention.patch)
    assert bits(plain) == stored(attention.base)


@pytest.mark.parametrize(
    "mapping",
    [{}, {"q.weight": [Slice("q.weight")]}, {"q.weight": []}],
    ids=["of the base", "named", "left alone, so missing"],
)
def test_a_lazy_parameter_is_refused(attention: Update, mapping: Mapping[str, list[Slice]]) -> None:
    """One that has no shape yet, as torch.nn.LazyLinear makes it."""
    state = state_of(attention.before) | {"q.weight": torch.nn.UninitializedParameter()}
    error: type[PatchcError] = UnsupportedInputError
    message = "'q.weight' is lazy.*call the model once"
    if mapping == {"q.weight": []}:
        error, message = WrongBaseError, "does not hold tensor 'q.weight'"
    with pytest.raises(error, match=message):
        live.apply_(state, attention.patch, mapping=mapping)


def test_a_lazy_parameter_that_the_base_does_not_know_is_refused(attention: Update) -> None:
    state = state_of(attention.before) | {"extra": torch.nn.UninitializedParameter()}
    with pytest.raises(UnsupportedInputError, match="'extra' is lazy"):
        live.apply_(state, attention.patch)


def test_experts_stacked_into_one_parameter(tmp_path: Path) -> None:
    shapes = {f"experts.{e}.{part}": (20, 64) for e in range(3) for part in ("gate", "up")}
    before = {name: normal(shape, "BF16", i) for i, (name, shape) in enumerate(shapes.items())}
    update = make_update(tmp_path, before, {n: nudge(v, 0.1, 3) for n, v in before.items()})
    mapping = {"gate_up": [Slice(name) for name in shapes]}
    state, expected = (
        {"gate_up": to_torch(np.stack(list(tensors.values())).reshape(3, 40, 64))}
        for tensors in (update.before, update.after)
    )
    live.apply_(state, update.patch, mapping=mapping)
    assert bits(state) == bits(expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_fused_parameters_on_a_device_change_and_return(attention: Update) -> None:
    state = {name: tensor.cuda() for name, tensor in fused(attention.before).items()}
    live.apply_(state, attention.patch, mapping=FUSED)
    assert bits({n: t.cpu() for n, t in state.items()}) == bits(fused(attention.after))
