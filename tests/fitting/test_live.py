"""Points set in a loaded model: the bits of what build and apply write, and the base's again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_inputs import words_of, write_models
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import patchc
from patchc.checkpoint import open_checkpoint
from patchc.derivation.base_model import name_tensors
from patchc.fitting.fit_options import SHARINGS, Sharing
from patchc.fitting.inputs import Sources, gather_entries
from patchc.fitting.live import LiveModel
from patchc.fitting.scales import ScaleGroups, Values, group_tensors, tidy
from patchc.recipe import MergeOverride, MergeRecipe, Override, Recipe
from patchc.runtime.runtime import Runtime

RECIPES: dict[str, Recipe | MergeRecipe] = {
    "difference": Recipe(retain=0.5, top_se=0.3, top_osm=0.3),
    "intersection": Recipe(retain=0.8, top_se=0.6, top_osm=0.6, sets="intersection"),
    "union, rescaled": Recipe(retain=0.5, top_se=0.4, top_osm=0.2, sets="union", rescale=True),
    "SE alone, by row": Recipe(retain=0.5, top_se=0.3, sets="se", scope="row"),
    "OSM alone": Recipe(sets="osm", retain=0.9, top_osm=0.5),
    "global": Recipe(retain=0.5, top_se=0.3, top_osm=0.3, scope="global"),
    "ranked among all": Recipe(retain=0.5, top_se=0.6, top_osm=0.5, rank_among="all"),
    "large steps": Recipe(retain=0.5, top_se=0.3, top_osm=0.3, least_step=4),
    "densities by tensor": Recipe(
        retain=0.5, top_se=0.3, rescale=True, overrides=(Override("q_proj", retain=0.25),)
    ),
    "task arithmetic": MergeRecipe("task-arithmetic", lambda_=0.7),
    "dare": MergeRecipe("dare", density=0.3, seed=5),
    "magnitude": MergeRecipe("magnitude", density=0.4),
    "ties": MergeRecipe("ties", density=0.4, weight=(1.0, 0.5)),
    "dare, λ by tensor": MergeRecipe(
        "dare", density=0.3, overrides=(MergeOverride("layers.0", lambda_=3.0),)
    ),
    "ties, weights by tensor": MergeRecipe(
        "ties", density=0.4, overrides=(MergeOverride("layers.0", weight=(0.2, 3.0)),)
    ),
    "ties, global": MergeRecipe("ties", density=0.4, scope="global"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models")
    write_models(found)
    return found


def sources(folder: Path, recipe: Recipe | MergeRecipe) -> Sources:
    se, osm = folder / "se", folder / "osm"
    if isinstance(recipe, MergeRecipe):
        return Sources(folder / "base", tuned=(se, osm))
    return Sources(folder / "base", se, osm)


def built(folder: Path, recipe: Recipe | MergeRecipe, out: Path) -> dict[str, np.ndarray]:
    """What build and apply make of a recipe."""
    named: dict[str, Any] = (
        {"tuned": [folder / "se", folder / "osm"]}
        if isinstance(recipe, MergeRecipe)
        else {"se": folder / "se", "osm": folder / "osm"}
    )
    patchc.build(folder / "base", **named, out=out / "fix.patchc", recipe=recipe)
    patchc.apply(out / "fix.patchc", folder / "base", out=out / "patched")
    return words_of(out / "patched")


def point(groups: ScaleGroups, seed: int) -> Values:
    """Scales of any sign around those at the start."""
    start = groups.start()
    return tidy(start + 3 * np.random.default_rng(seed).standard_normal(start.shape))


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_point_is_what_build_and_apply_write(
    name: str, sharing: Sharing, folder: Path, tmp_path: Path
) -> None:
    recipe = RECIPES[name]
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with open_checkpoint(folder / "base") as base, Runtime(2) as runtime:
        found = gather_entries(base, sources(folder, recipe), recipe, runtime)
        live = LiveModel(model, name_tensors(model, base), found.entries)
        groups = ScaleGroups(recipe, found.components, list(found.entries), sharing)
        values = point(groups, 1)
        expected = built(folder, groups.to_recipe(values), tmp_path)
        live.set(groups.tensor_scales(values))
        state = model.state_dict()
        for key, words in expected.items():
            assert np.array_equal(state[key].view(torch.int16).numpy(), words), key
        live.restore()
    assert any((words_of(folder / "base")[key] != words).any() for key, words in expected.items())
    for key, value in model.state_dict().items():
        assert torch.equal(value.view(torch.int16), before[key].view(torch.int16)), key


def test_entries_take_at_most_twelve_bytes_for_each_retained_entry_and_component(
    folder: Path,
) -> None:
    for recipe, components in ((RECIPES["difference"], 2), (RECIPES["SE alone, by row"], 1)):
        assert isinstance(recipe, Recipe)
        with open_checkpoint(folder / "base") as base, Runtime(1) as runtime:
            found = gather_entries(base, sources(folder, recipe), recipe, runtime)
        words = sum(each.tensor.words for each in found.entries.values())
        taken = sum(each.found.nbytes for each in found.entries.values())
        assert taken <= 12 * components * recipe.retain * words * 1.05


@pytest.mark.parametrize("name", RECIPES)
def test_the_gradients_of_scales_are_those_along_the_deltas(name: str, folder: Path) -> None:
    """Against plain backpropagation, and deltas taken from the files."""
    recipe = RECIPES[name]
    with open_checkpoint(folder / "base") as base, Runtime(1) as runtime:
        found = gather_entries(base, sources(folder, recipe), recipe, runtime)
        tokens = torch.arange(1, 12)[None]
        plain = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        torch.autograd.backward(plain(input_ids=tokens).logits.square().mean())
        model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        live = LiveModel(model, name_tensors(model, base), found.entries)
        with live.gradients() as gradients:
            torch.autograd.backward(model(input_ids=tokens).logits.square().mean())
    files = [load_file(folder / one / "model.safetensors") for one in ("base", "se", "osm")]
    for tensor, entries in found.entries.items():
        gradient = plain.get_parameter(tensor).grad
        assert gradient is not None
        places = torch.from_numpy(entries.found.positions.astype(np.int64))
        origin, *tuned = (file[tensor].flatten().double()[places] for file in files)
        deltas = [one - origin for one in tuned]
        if "OSM alone" in name:
            deltas = deltas[1:]
        own = recipe.for_tensor(tensor)
        factor = own.lambda_ if isinstance(own, MergeRecipe) and not entries.elects else 1.0
        for number, direction in enumerate(entries.directions()):
            taken = torch.from_numpy(direction != 0)
            if not entries.elects:
                expected = torch.where(taken, factor * deltas[number], 0.0)
                assert torch.allclose(torch.from_numpy(direction).double(), expected, rtol=1e-5)
            along = (gradient.flatten().double()[places] * torch.from_numpy(direction)).sum()
            assert gradients[tensor][number] == pytest.approx(along.item(), rel=1e-3, abs=1e-6)


@given(
    sharing=st.sampled_from(SHARINGS),
    layers=st.integers(1, 12),
    modules=st.lists(
        st.sampled_from(["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.experts.0.w"]),
        min_size=1,
        unique=True,
    ),
)
@settings(max_examples=60, deadline=None)
def test_a_recipe_gives_every_tensor_the_scales_of_its_group(
    sharing: Sharing, layers: int, modules: list[str]
) -> None:
    names = [f"model.layers.{n}.{module}.weight" for n in range(layers) for module in modules]
    groups = ScaleGroups(Recipe(), ("se", "osm"), names, sharing)
    assert sorted(name for group in groups.groups for name in group.tensors) == sorted(names)
    values = tidy(np.random.default_rng(0).standard_normal((2, len(groups.groups))))
    recipe = groups.to_recipe(values)
    assert isinstance(recipe, Recipe)
    for number, group in enumerate(group_tensors(names, sharing)):
        for name in group.tensors:
            own = recipe.for_tensor(name)
            assert (own.alpha, own.beta) == tuple(values[:, number])
            assert [float(f) for f in groups.tensor_scales(values)[name]] == [
                float(np.float32(own.alpha)), float(np.float32(own.beta)),
            ]  # fmt: skip
