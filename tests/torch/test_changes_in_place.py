"""The live hot patch: loaded models change in place, exactly, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from live_states import Update, bits, make_update, state_of, stored, to_torch
from numpy.typing import NDArray
from tiny_checkpoints import PatchedModel, nudge, read_model, write_model

import patchc
import patchc.torch as live
from patchc.errors import (
    AlreadyPatchedError,
    NotPatchedError,
)

UP = "model.layers.{}.mlp.up_proj.weight"


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


@pytest.mark.parametrize("verify", [True, False])
def test_words_from_a_base_on_disk(update: Update, verify: bool) -> None:
    state = state_of(update.before)
    live.apply_(state, update.patch, base=update.base, verify=verify)
    assert bits(state) == stored(update.tuned)
    live.revert_(state, update.patch, base=update.base, verify=verify)
    assert bits(state) == stored(update.base)
    live.apply_(state, update.patch, base=update.tuned, verify=verify)
    assert bits(state) == stored(update.tuned)


def test_without_verification_the_live_words_are_not_read(update: Update) -> None:
    state = state_of(update.before)
    state["k.fixed"].zero_()
    live.apply_(state, update.patch, base=update.base, verify=False)
    assert not state["k.fixed"].any()
    assert bits({"a.weight": state["a.weight"]})["a.weight"] == stored(update.tuned)["a.weight"]


def test_prepare_writes_nothing_and_applying_only_what_changes(update: Update) -> None:
    state = state_of(update.before)
    prepared = live.prepare(state, update.patch)
    assert bits(state) == stored(update.base)
    assert prepared.applied is False
    words = sum(int((a != b).sum()) for a, b in _word_pairs(update))
    assert prepared.report.changed_words == words
    assert 5 * words <= prepared.report.nbytes <= 12 * words
    prepared.apply_()
    assert prepared.applied
    assert bits(state) == stored(update.tuned)
    with pytest.raises(AlreadyPatchedError, match="already holds"):
        prepared.apply_()
    prepared.revert_()
    assert bits(state) == stored(update.base)
    with pytest.raises(NotPatchedError, match="nothing to revert"):
        prepared.revert_()
    prepared.apply_()
    assert bits(state) == stored(update.tuned)


@pytest.mark.parametrize("base", [None, "base", "tuned"])
def test_what_is_prepared_goes_both_ways_from_either_side(update: Update, base: str | None) -> None:
    given = {} if base is None else {"base": getattr(update, base)}
    state = state_of(update.after)
    prepared = live.prepare(state, update.patch, **given)
    assert prepared.applied
    prepared.revert_()
    assert bits(state) == stored(update.base)
    prepared.apply_()
    assert bits(state) == stored(update.tuned)
    if given:
        unread = live.prepare(state, update.patch, **given, verify=False)
        assert unread.applied is None
        unread.revert_()
        assert unread.applied is False
        assert bits(state) == stored(update.base)


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


def test_a_compiled_module_has_the_names_of_its_own(attention: Update) -> None:
    """Compiled whole, and in a part: torch puts a name of its own before the module's."""
    module = torch.nn.Module()
    for name, array in attention.before.items():
        weight = torch.nn.Parameter(to_torch(array))
        if name == "embed":
            module.embed = weight
        else:
            part = torch.nn.Module()
            part.weight = weight
            module.register_module(name[0], torch.compile(part, backend="eager"))
    for model in (module, torch.compile(module, backend="eager")):
        live.apply_(model, attention.patch)
        found = {
            name: dict(module.named_parameters())[_compiled(name)] for name in attention.before
        }
        assert bits(found) == stored(attention.tuned)
        live.revert_(model, attention.patch)
        assert bits(found) == stored(attention.base)


def _compiled(name: str) -> str:
    return name.replace(".", "._orig_mod.")


def test_a_patch_without_changes_leaves_all_as_it_is(tmp_path: Path, attention: Update) -> None:
    update = make_update(tmp_path / "same", attention.before, attention.before)
    state = state_of(attention.before)
    report = live.apply_(state, update.patch)
    assert (report.parameters, report.changed_words, report.launches) == ((), 0, 0)
    assert bits(state) == stored(attention.base)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("with_base", [False, True])
def test_a_model_on_a_device_changes_and_returns(update: Update, with_base: bool) -> None:
    state = {name: tensor.cuda() for name, tensor in state_of(update.before).items()}
    base = update.base if with_base else None
    prepared = live.prepare(state, update.patch, base=base)
    prepared.apply_()
    assert bits({n: t.cpu() for n, t in state.items()}) == stored(update.tuned)
    prepared.revert_()
    assert bits({n: t.cpu() for n, t in state.items()}) == stored(update.base)
    with torch.cuda.stream(torch.cuda.Stream()):
        live.apply_(state, update.patch, base=base)
    assert bits({n: t.cpu() for n, t in state.items()}) == stored(update.tuned)
    live.revert_(state, update.patch, base=base)
    assert bits({n: t.cpu() for n, t in state.items()}) == stored(update.base)
