"""The live hot patch: loaded models change in place, exactly, or not at all."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from additive_inputs import write_inputs
from forged_patch import parts_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from second_reader import read_index
from tiny_checkpoints import PatchedModel, Tensors, normal, nudge, read_model, write_model

import patchc
from patchc.errors import (
    AlreadyPatchedError,
    NotPatchedError,
    PartlyPatchedError,
    PatchcError,
    PatchFormatError,
    ResultMismatchError,
    UnsupportedInputError,
    UsageError,
    WrongBaseError,
)
from patchc.sides import Side

torch = pytest.importorskip("torch")

import patchc.torch as live  # noqa: E402
from patchc.torch import Part  # noqa: E402

TORCH = {
    np.dtype(ml_dtypes.bfloat16): torch.bfloat16,
    np.dtype(ml_dtypes.float8_e4m3fn): torch.float8_e4m3fn,
    np.dtype(ml_dtypes.float8_e5m2): torch.float8_e5m2,
}
UP = "model.layers.{}.mlp.up_proj.weight"
State = dict[str, Any]


def to_torch(array: NDArray) -> Any:
    """A tensor with an array's bits, in memory of its own."""
    own = array.copy()
    if array.dtype in TORCH:
        return torch.from_numpy(own.view(f"i{own.itemsize}")).view(TORCH[array.dtype])
    return torch.from_numpy(own)


def state_of(tensors: Tensors) -> State:
    """A state dict with a checkpoint's bits."""
    return {name: to_torch(np.asarray(value)) for name, value in tensors.items()}


def bits(state: Mapping[str, Any]) -> dict[str, bytes]:
    """The memory of every tensor."""
    return {
        name: tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, tensor in state.items()
    }


def stored(folder: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a checkpoint."""
    return {name: tensor.data for name, tensor in read_model(folder).items()}


@dataclass(frozen=True)
class Update:
    """Two checkpoints, the patch between them, and their arrays."""

    base: Path
    tuned: Path
    patch: Path
    before: Mapping[str, NDArray]
    after: Mapping[str, NDArray]


def make_update(
    root: Path, before: Tensors, after: Tensors, codec: str = "auto", chunk_bits: int = 12
) -> Update:
    base, tuned = (write_model(root / n, t) for n, t in (("base", before), ("tuned", after)))
    patch = root / "update.patchc"
    patchc.diff(base, tuned, out=patch, chunk_bits=chunk_bits, codec=codec)
    return Update(base, tuned, patch, dict(before), dict(after))


@pytest.fixture(params=["auto", "rice"])
def update(request: pytest.FixtureRequest, tmp_path: Path) -> Update:
    """Tensors of many dtypes, larger and smaller than a chunk; one does not change."""
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "a.weight": ((70, 100), "BF16"),
        "b.weight": ((41, 101), "F16"),
        "c.weight": ((5000,), "F32"),
        "d.weight": ((90, 90), "F8_E4M3"),
        "e.weight": ((64, 65), "F8_E5M2"),
        "f.scale": ((), "F32"),
        "g.ids": ((4097,), "I32"),
        "h.bytes": ((3, 7), "U8"),
        "i.double": ((77,), "F64"),
        "j.empty": ((0, 5), "BF16"),
    }
    before = {name: normal(*kind, seed) for seed, (name, kind) in enumerate(shapes.items())}
    after = {name: nudge(value, 0.2, 7) for name, value in before.items()}
    after["f.scale"] = np.array(-before["f.scale"])
    before["k.fixed"] = after["k.fixed"] = normal((300, 50), "BF16", 99)
    return make_update(tmp_path, before, after, request.param)


@pytest.fixture
def attention(tmp_path: Path) -> Update:
    """q, k and v of one width, with rows that lie across chunks, and an embedding."""
    shapes = {"q.weight": (64, 96), "k.weight": (32, 96), "v.weight": (32, 96), "embed": (150, 64)}
    before = {name: normal(shape, "BF16", i) for i, (name, shape) in enumerate(shapes.items())}
    after = {name: nudge(value, 0.1, 5) for name, value in before.items()}
    return make_update(tmp_path, before, after)


FUSED = {"qkv.weight": [Part("q.weight"), Part("k.weight"), Part("v.weight")]}


def fused(tensors: Mapping[str, NDArray]) -> State:
    qkv = np.concatenate([tensors[f"{name}.weight"] for name in "qkv"])
    return {"qkv.weight": to_torch(qkv), "embed": to_torch(tensors["embed"])}


def test_a_state_dict_changes_in_place_and_back(update: Update) -> None:
    state = state_of(update.before)
    places = {name: tensor.data_ptr() for name, tensor in state.items()}
    report = live.apply_(state, update.patch, threads=2)
    assert bits(state) == stored(update.tuned)
    assert {name: tensor.data_ptr() for name, tensor in state.items()} == places
    changed = [
        n for n in update.before if bits({n: state[n]}) != bits(state_of({n: update.before[n]}))
    ]
    assert sorted(report.parameters) == sorted(changed)
    inspected = patchc.inspect(update.patch)
    assert report.root == inspected.root
    live.revert_(state, update.patch)
    assert bits(state) == stored(update.base)


@pytest.mark.parametrize("trust", [False, True])
def test_words_from_a_base_on_disk(update: Update, trust: bool) -> None:
    state = state_of(update.before)
    live.apply_(state, update.patch, base=update.base, trust=trust)
    assert bits(state) == stored(update.tuned)
    live.revert_(state, update.patch, base=update.base, trust=trust)
    assert bits(state) == stored(update.base)
    live.apply_(state, update.patch, base=update.tuned, trust=trust)
    assert bits(state) == stored(update.tuned)


def test_trust_does_not_read_the_live_words(update: Update) -> None:
    state = state_of(update.before)
    state["k.fixed"].zero_()
    live.apply_(state, update.patch, base=update.base, trust=True)
    assert not state["k.fixed"].any()
    assert bits({"a.weight": state["a.weight"]})["a.weight"] == stored(update.tuned)["a.weight"]


def test_prepare_writes_nothing_and_commit_only_what_changes(update: Update) -> None:
    state = state_of(update.before)
    prepared = live.prepare(state, update.patch)
    assert bits(state) == stored(update.base)
    assert not prepared.committed
    words = sum(int((a != b).sum()) for a, b in _word_pairs(update))
    assert prepared.report.changed_words == words
    assert 5 * words <= prepared.report.nbytes <= 12 * words
    prepared.commit()
    assert prepared.committed
    assert bits(state) == stored(update.tuned)
    with pytest.raises(AlreadyPatchedError, match="committed already"):
        prepared.commit()
    prepared.rollback()
    assert bits(state) == stored(update.base)
    with pytest.raises(UsageError, match="nothing to roll back"):
        prepared.rollback()
    prepared.commit()
    assert bits(state) == stored(update.tuned)


def _word_pairs(update: Update) -> Iterator[tuple[NDArray, NDArray]]:
    for name, value in update.before.items():
        kind = f"u{value.itemsize}"
        yield value.reshape(-1).view(kind), update.after[name].reshape(-1).view(kind)


def test_one_launch_for_each_combination_of_types(patched: PatchedModel) -> None:
    prepared = live.prepare(state_of(patched.base_tensors), patched.patch)
    assert prepared.report.launches == 1
    assert prepared.report.nbytes == 5 * prepared.report.changed_words
    assert prepared.report.parameters == tuple(UP.format(i) for i in range(4))


def test_a_module_with_tied_embeddings(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import tiny_llama

    base = tiny_llama.write_base(tmp_path / "base", tied=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    kept = read_model(base)
    tuned = {
        name: nudge(np.frombuffer(t.data, ml_dtypes.bfloat16).reshape(t.shape), 0.2, i)
        for i, (name, t) in enumerate(kept.items())
    }
    assert "lm_head.weight" not in tuned
    write_model(tmp_path / "tuned", tuned)
    patch = tmp_path / "update.patchc"
    patchc.diff(base, tmp_path / "tuned", out=patch, weights_only=True)
    live.apply_(model, patch)
    patchc.apply(patch, base, out=tmp_path / "applied")
    other = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "applied", dtype=torch.bfloat16
    )
    assert bits(model.state_dict()) == bits(other.state_dict())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tokens = torch.arange(6)[None]
    assert torch.equal(model(tokens).logits, other(tokens).logits)
    live.revert_(model, patch)
    assert bits(dict(model.named_parameters())) == {n: t.data for n, t in kept.items()}


# The state that the model is in.


def test_applied_twice_or_reverted_from_the_base_is_refused(update: Update) -> None:
    state = state_of(update.after)
    for base in (None, update.base):
        with pytest.raises(AlreadyPatchedError, match="the loaded model already holds"):
            live.apply_(state, update.patch, base=base)
    assert bits(state) == stored(update.tuned)
    state = state_of(update.before)
    for base in (None, update.base, update.tuned):
        with pytest.raises(NotPatchedError, match="does not hold"):
            live.revert_(state, update.patch, base=base)
    assert bits(state) == stored(update.base)


@pytest.mark.parametrize("with_base", [False, True])
def test_a_partly_patched_model_is_refused(update: Update, with_base: bool) -> None:
    state = state_of({**update.before, "b.weight": update.after["b.weight"]})
    found = bits(state)
    for verb in (live.apply_, live.revert_):
        with pytest.raises(PartlyPatchedError, match="the loaded model is partly patched"):
            verb(state, update.patch, base=update.base if with_base else None)
    assert bits(state) == found


@pytest.mark.parametrize("name", ["a.weight", "k.fixed", "f.scale"])
@pytest.mark.parametrize("with_base", [False, True])
def test_one_foreign_word_is_refused_by_name(update: Update, name: str, with_base: bool) -> None:
    state = state_of(update.before)
    state[name].view(-1).view(torch.uint8)[-1] ^= 4
    found = bits(state)
    for verb in (live.apply_, live.revert_):
        with pytest.raises(WrongBaseError, match=f"the loaded model is not .*{name}"):
            verb(state, update.patch, base=update.base if with_base else None)
    assert bits(state) == found


def test_a_foreign_base_on_disk_is_refused_by_its_path(tmp_path: Path, update: Update) -> None:
    other = write_model(
        tmp_path / "other", {**update.before, "k.fixed": update.before["k.fixed"] * 2}
    )
    with pytest.raises(WrongBaseError, match=f"{other} is not .*k.fixed"):
        live.apply_(state_of(update.before), update.patch, base=other, trust=True)


def _without(state: State, name: str) -> None:
    del state[name]


def _renamed(state: State, name: str) -> None:
    state["other"] = state.pop(name)


def _cast(state: State, name: str) -> None:
    state[name] = state[name].to(torch.float32)


def _reshaped(state: State, name: str) -> None:
    state[name] = state[name].reshape(100, 70)


def _added(state: State, name: str) -> None:
    state[f"{name}.lora"] = torch.ones(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without, "does not hold tensor 'a.weight'"),
        (_renamed, "no tensor 'other'"),
        (_cast, r"'a.weight' is F32 \[70, 100\] and .* has BF16 \[70, 100\]"),
        (_reshaped, r"'a.weight' is BF16 \[100, 70\] and .* has BF16 \[70, 100\]"),
        (_added, "no tensor 'a.weight.lora'"),
    ],
)
def test_other_tensors_are_refused_by_name(
    update: Update, change: Callable[[State, str], None], message: str
) -> None:
    state = state_of(update.before)
    change(state, "a.weight")
    found = bits(state)
    with pytest.raises(WrongBaseError, match=message):
        live.apply_(state, update.patch)
    assert bits(state) == found


def test_a_parameter_without_words(tmp_path: Path) -> None:
    tensors = {"a": np.arange(9, dtype=np.int32), "none": np.zeros((5, 0), np.float32)}
    update = make_update(tmp_path, tensors, tensors | {"a": np.arange(1, 10, dtype=np.int32)})
    state = state_of(tensors)
    live.apply_(state, update.patch)
    assert bits(state) == stored(update.tuned)


def test_a_parameter_without_parts_is_left_alone(update: Update) -> None:
    state = state_of(update.before)
    state["adapter"] = torch.ones(3)
    live.apply_(state, update.patch, names={"adapter": []})
    assert bits({"adapter": state.pop("adapter")}) == bits({"adapter": torch.ones(3)})
    assert bits(state) == stored(update.tuned)


def test_what_is_no_model_is_refused(attention: Update) -> None:
    with pytest.raises(UsageError, match="the model is a PosixPath"):
        live.apply_(attention.base, attention.patch)  # type: ignore[arg-type]


def test_what_is_no_tensor_and_buffers_of_the_model_are_let_be(attention: Update) -> None:
    state = state_of(attention.before)
    live.apply_(state | {"extra": {"not": "a tensor"}}, attention.patch)
    assert bits(state) == stored(attention.tuned)
    module = torch.nn.Module()
    for name in "qkv":
        weight = to_torch(attention.before[f"{name}.weight"])
        module.register_module(name, torch.nn.Module())
        module.get_submodule(name).weight = torch.nn.Parameter(weight)
    module.register_buffer("embed", to_torch(attention.before["embed"]))
    module.register_buffer("cache", torch.ones(4), persistent=False)
    live.apply_(module, attention.patch)
    assert bits(module.state_dict()) == stored(attention.tuned)
    assert module.cache.tolist() == [1.0] * 4


# Fused, sharded, renamed, tied.


@pytest.mark.parametrize("with_base", [False, True])
def test_fused_parameters(attention: Update, with_base: bool) -> None:
    state = fused(attention.before)
    base = attention.base if with_base else None
    live.apply_(state, attention.patch, names=FUSED, base=base)
    assert bits(state) == bits(fused(attention.after))
    live.revert_(state, attention.patch, names=FUSED, base=base)
    assert bits(state) == bits(fused(attention.before))


@pytest.mark.parametrize("trust", [False, True])
def test_shards_of_two_ranks_with_a_padded_vocabulary(attention: Update, trust: bool) -> None:
    def shard(tensors: Mapping[str, NDArray], rank: int) -> State:
        heads = [np.array_split(tensors[f"{name}.weight"], 2)[rank] for name in "qkv"]
        words = tensors["embed"][80 * rank : 80 * rank + 80]
        padding = np.zeros((80 - len(words), 64), words.dtype)
        embed = np.concatenate([words, padding])
        return {"qkv": to_torch(np.concatenate(heads)), "vocabulary": to_torch(embed)}

    for rank in (0, 1):
        state = shard(attention.before, rank)
        names = {
            "qkv": [
                Part("q.weight", (32 * rank, 32 * rank + 32)),
                Part("v.weight", (16 * rank, 16 * rank + 16), at=48),
                Part("k.weight", (16 * rank, 16 * rank + 16), at=32),
            ],
            "vocabulary": [Part("embed", (80 * rank, min(80 * rank + 80, 150)))],
        }
        options: Any = {"base": attention.base, "names": names, "shard": True, "trust": trust}
        live.apply_(state, attention.patch, **options)
        assert bits(state) == bits(shard(attention.after, rank))
        live.revert_(state, attention.patch, **options)
        assert bits(state) == bits(shard(attention.before, rank))
        if not trust:
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
    names: dict[str, list[Part]] = {"one": [], "two": []}
    for bounds in ranges:
        names[data.draw(st.sampled_from(["one", "two"]))].append(Part("w", bounds))
    state, expected = (
        {
            name: to_torch(
                np.concatenate([t["w"][:0], *(t["w"][slice(*p.rows or ())] for p in parts)])
            )
            for name, parts in names.items()
        }
        for t in (before, after)
    )
    live.apply_(state, update.patch, names=names)
    assert bits(state) == bits(expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"qkv": []}, "no parameter 'qkv'"),
        ({"qkv.weight": [Part("w.weight")]}, "'qkv.weight': the base .* has no 'w.weight'"),
        ({"qkv.weight": [Part("q.weight", (0, 65))]}, "rows 0 to 65"),
        ({"qkv.weight": [Part("q.weight", (9, 3))]}, "rows 9 to 3"),
        ({"qkv.weight": [Part("q.weight", at=65)]}, "at row 65"),
        ({"qkv.weight": [Part("q.weight", at=-1)]}, "at row -1"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(
    attention: Update, names: dict[str, list[Part]], message: str
) -> None:
    state = fused(attention.before)
    with pytest.raises(UsageError, match=message):
        live.apply_(state, attention.patch, names=names)


def test_rows_of_another_width_are_refused(attention: Update) -> None:
    names = FUSED | {"embed": [Part("q.weight")]}
    with pytest.raises(WrongBaseError, match=r"'embed' .* cannot hold rows of 'q.weight'"):
        live.apply_(fused(attention.before), attention.patch, names=names)


def test_rows_that_nothing_holds_are_refused_unless_it_is_a_shard(attention: Update) -> None:
    names = {"qkv.weight": [*FUSED["qkv.weight"][:2], Part("v.weight", (0, 31))]}
    with pytest.raises(WrongBaseError, match=r"not hold tensor 'v.weight'.*shard=True"):
        live.apply_(fused(attention.before), attention.patch, names=names)
    with pytest.raises(UsageError, match="shard=True needs base="):
        live.apply_(fused(attention.before), attention.patch, names=names, shard=True)
    with pytest.raises(UsageError, match="trust=True needs base="):
        live.apply_(state_of(attention.before), attention.patch, trust=True)


def test_a_tensor_held_twice_needs_a_base_and_both_change(attention: Update) -> None:
    state = state_of(attention.before)
    state["head"] = state["embed"].clone()
    names = {"head": [Part("embed")]}
    with pytest.raises(UnsupportedInputError, match=r"'embed' is held twice.*'head'.*base="):
        live.apply_(state, attention.patch, names=names)
    live.apply_(state, attention.patch, names=names, base=attention.base)
    assert bits({"embed": state["head"]}) == bits({"embed": state["embed"]})
    assert bits({"embed": state["head"]})["embed"] == stored(attention.tuned)["embed"]
    state["head"].copy_(to_torch(attention.before["embed"]))
    with pytest.raises(PartlyPatchedError):
        live.revert_(state, attention.patch, names=names, base=attention.base)


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
            names={"qkv.weight": [Part("k.weight", at=63), Part("v.weight")]},
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
        "is on device meta": plain["q.weight"].to("meta"),
        "is a negated or conjugated view": torch._neg_view(-plain["q.weight"]),
    }
    for message, tensor in cases.items():
        with pytest.raises(UnsupportedInputError, match=f"'q.weight' .*{message}"):
            live.apply_({**plain, "q.weight": tensor}, attention.patch)
    assert bits(plain) == stored(attention.base)


@pytest.mark.parametrize(
    "names",
    [{}, {"q.weight": [Part("q.weight")]}, {"q.weight": []}],
    ids=["of the base", "named", "left alone, so missing"],
)
def test_a_lazy_parameter_is_refused(attention: Update, names: Mapping[str, list[Part]]) -> None:
    """One that has no shape yet, as torch.nn.LazyLinear makes it."""
    state = state_of(attention.before) | {"q.weight": torch.nn.UninitializedParameter()}
    error: type[PatchcError] = UnsupportedInputError
    message = "'q.weight' is lazy.*call the model once"
    if names == {"q.weight": []}:
        error, message = WrongBaseError, "does not hold tensor 'q.weight'"
    with pytest.raises(error, match=message):
        live.apply_(state, attention.patch, names=names)


def test_a_lazy_parameter_that_the_base_does_not_know_is_refused(attention: Update) -> None:
    state = state_of(attention.before) | {"extra": torch.nn.UninitializedParameter()}
    with pytest.raises(UnsupportedInputError, match="'extra' is lazy"):
        live.apply_(state, attention.patch)


def test_experts_stacked_into_one_parameter(tmp_path: Path) -> None:
    shapes = {f"experts.{e}.{part}": (20, 64) for e in range(3) for part in ("gate", "up")}
    before = {name: normal(shape, "BF16", i) for i, (name, shape) in enumerate(shapes.items())}
    update = make_update(tmp_path, before, {n: nudge(v, 0.1, 3) for n, v in before.items()})
    names = {"gate_up": [Part(name) for name in shapes]}
    state, expected = (
        {"gate_up": to_torch(np.stack(list(tensors.values())).reshape(3, 40, 64))}
        for tensors in (update.before, update.after)
    )
    live.apply_(state, update.patch, names=names)
    assert bits(state) == bits(expected)


# Between prepare and commit.


def test_a_parameter_that_was_written_to_is_refused(attention: Update) -> None:
    state = state_of(attention.before)
    prepared = live.prepare(state, attention.patch)
    state["embed"].add_(0)
    with pytest.raises(UsageError, match="'embed' was written to"):
        prepared.commit()
    assert bits(state) == stored(attention.base)


def test_a_parameter_that_was_moved_is_refused(attention: Update) -> None:
    state = state_of(attention.before)
    prepared = live.prepare(state, attention.patch)
    prepared.commit()
    state["embed"] = state["embed"].clone()
    with pytest.raises(UsageError, match="'embed' was moved or replaced"):
        prepared.rollback()
    assert bits(state) == stored(attention.tuned)


def test_a_launch_that_fails_takes_back_those_before_it(
    update: Update,
) -> None:
    state = state_of(update.before)
    prepared = live.prepare(state, update.patch)
    assert prepared.report.launches > 3

    def fail(_: bool) -> None:
        assert bits(state) != stored(update.base)
        raise RuntimeError("no such luck")

    prepared._launches[3] = replace(prepared._launches[3], add=fail)
    with pytest.raises(RuntimeError, match="no such luck"):
        prepared.commit()
    assert bits(state) == stored(update.base)
    assert not prepared.committed


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Python's own answer to an interrupt, which a run in the background starts without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_waits_until_all_is_written(update: Update) -> None:
    state = state_of(update.before)
    prepared = live.prepare(state, update.patch)
    first = prepared._launches[0]

    def interrupted(target: Side) -> None:
        first.add(target)
        _thread.interrupt_main()

    prepared._launches[0] = replace(first, add=interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared.commit()
    assert bits(state) == stored(update.tuned)
    assert prepared.committed


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_while_the_thread_starts_waits_too(
    update: Update, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(update.before)
    prepared = live.prepare(state, update.patch)
    first, start = prepared._launches[0], threading.Thread.start

    def interrupted(target: Side) -> None:
        first.add(target)
        _thread.interrupt_main()
        time.sleep(0.2)

    def slowly(thread: threading.Thread) -> None:
        start(thread)
        time.sleep(0.2)

    prepared._launches[0] = replace(first, add=interrupted)
    monkeypatch.setattr(threading.Thread, "start", slowly)
    with pytest.raises(KeyboardInterrupt):
        prepared.commit()
    assert bits(state) == stored(update.tuned)


def test_autograd_notices_the_change(tmp_path: Path) -> None:
    before = {"w": normal((80, 60), "F32", 1)}
    update = make_update(tmp_path, before, {"w": nudge(before["w"], 0.1, 1)})
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(to_torch(before["w"]))
    loss = (module.w * module.w).sum()
    live.apply_(module, update.patch)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tensors_of_inference_mode(attention: Update) -> None:
    with torch.inference_mode():
        state = {name: tensor.clone() for name, tensor in state_of(attention.before).items()}
    live.apply_(state, attention.patch)
    with torch.inference_mode():
        assert bits(state) == stored(attention.tuned)
        live.revert_(state, attention.patch)
        assert bits(state) == stored(attention.base)


# Which patches.


def test_an_update_is_refused_with_what_to_do(tmp_path: Path, attention: Update) -> None:
    (attention.tuned / "config.json").write_text("{}")
    patch = tmp_path / "release.patchc"
    patchc.diff(attention.base, attention.tuned, out=patch)
    for call in (live.apply_, live.revert_, live.prepare):
        with pytest.raises(UnsupportedInputError, match=r"feature update.*weights-only"):
            call(state_of(attention.before), patch)
    with pytest.raises(UnsupportedInputError, match="feature update"):
        next(iter(live.patched_tensors(patch, attention.base)))


def test_an_additive_patch_is_refused_with_what_to_do(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    patch = tmp_path / "fix.patchc"
    patchc.build(**inputs.paths, out=patch, values="additive")
    with pytest.raises(UnsupportedInputError, match=r"additive values.*apply it to the checkpoint"):
        live.apply_(state_of(inputs.base), patch)
    with pytest.raises(UnsupportedInputError, match=r"additive values"):
        next(iter(live.patched_tensors(patch, inputs.paths["base"])))


def test_a_damaged_patch_changes_nothing(tmp_path: Path, attention: Update) -> None:
    content = bytearray(attention.patch.read_bytes())
    content[40] ^= 1
    damaged = tmp_path / "damaged.patchc"
    damaged.write_bytes(content)
    state = state_of(attention.before)
    with pytest.raises(PatchFormatError, match="damaged"):
        live.apply_(state, damaged)
    assert bits(state) == stored(attention.base)
    with pytest.raises(PatchFormatError, match="damaged"):
        list(live.patched_tensors(damaged, attention.base))


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
    with pytest.raises(error, match=match):
        list(live.patched_tensors(attention.patch, attention.base))


def test_another_outcome_than_the_promised_one_is_refused(attention: Update) -> None:
    parts = parts_of(attention.patch.read_bytes())
    results = [bytes(8)] * len(read_index(parts.index, False).result_digests)
    attention.patch.write_bytes(parts.with_columns(result_digests=results).assemble())
    state = state_of(attention.before)
    with pytest.raises(ResultMismatchError, match=r"tensor 'embed', chunk 0: the outcome"):
        live.apply_(state, attention.patch)
    assert bits(state) == stored(attention.base)


def test_a_patch_without_changes_leaves_all_as_it_is(tmp_path: Path, attention: Update) -> None:
    update = make_update(tmp_path / "same", attention.before, attention.before)
    state = state_of(attention.before)
    report = live.apply_(state, update.patch)
    assert (report.parameters, report.changed_words, report.launches) == ((), 0, 0)
    assert bits(state) == stored(attention.base)


# A stream of tensors.


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


# Without torch.


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


# On a real device.


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("with_base", [False, True])
def test_on_a_device(update: Update, with_base: bool) -> None:
    state = {name: tensor.cuda() for name, tensor in state_of(update.before).items()}
    base = update.base if with_base else None
    prepared = live.prepare(state, update.patch, base=base)
    prepared.commit()
    assert bits({n: t.cpu() for n, t in state.items()}) == stored(update.tuned)
    prepared.rollback()
    assert bits({n: t.cpu() for n, t in state.items()}) == stored(update.base)
    with torch.cuda.stream(torch.cuda.Stream()):
        live.apply_(state, update.patch, base=base)
    assert bits({n: t.cpu() for n, t in state.items()}) == stored(update.tuned)
    live.revert_(state, update.patch, base=base)
    assert bits({n: t.cpu() for n, t in state.items()}) == stored(update.base)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_fused_on_a_device(attention: Update) -> None:
    state = {name: tensor.cuda() for name, tensor in fused(attention.before).items()}
    live.apply_(state, attention.patch, names=FUSED)
    assert bits({n: t.cpu() for n, t in state.items()}) == bits(fused(attention.after))
