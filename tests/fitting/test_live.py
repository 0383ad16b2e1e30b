"""Points set in a loaded model: the bits of what build and apply write, and the base's again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_inputs import words_of, write_models
from fit_runs import HELD, STREAMED, WAYS, open_live
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import patchc
from patchc.checkpoint import open_checkpoint
from patchc.errors import UnsupportedInputError
from patchc.fitting.fit_options import SHARINGS, Sharing
from patchc.fitting.inputs import Sources, gather_entries
from patchc.fitting.scales import ScaleGroups, Values, group_tensors, tidy
from patchc.layered.boundaries import HeldBoundaries
from patchc.layered.layered_model import LayeredModel
from patchc.layered.passes import Pass, Term
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


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose head is their embedding."""
    found = tmp_path_factory.mktemp("tied")
    write_models(found, tied=True)
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


def words_in(model: LayeredModel) -> dict[str, np.ndarray]:
    """The bits of every tensor, as the model computes with them."""
    parts, weights = model.parts, model.weights
    found = {name: parameter.detach() for name, parameter in parts.rest.items()}
    for name in (parts.embedding_name, parts.head_name):
        found[name] = weights.rows(name, 0, parts.shapes[name][0])
    for number, names in enumerate(parts.layer_names):
        layer = weights.layer(number, None)
        found |= {name: layer[local].clone() for local, name in names.items()}
    return {
        name: value.contiguous().view(torch.int16).numpy().copy() for name, value in found.items()
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_point_is_what_build_and_apply_write(
    name: str, sharing: Sharing, way: str, folder: Path, tmp_path: Path
) -> None:
    recipe, before = RECIPES[name], words_of(folder / "base")
    with open_checkpoint(folder / "base") as base, Runtime(2) as runtime:
        found = gather_entries(base, sources(folder, recipe), recipe, runtime)
        groups = ScaleGroups(recipe, found.components, list(found.entries), sharing)
        values = point(groups, 1)
        expected = built(folder, groups.to_recipe(values), tmp_path)
        with open_live(base, torch.bfloat16, found.entries, way) as live:
            live.set(groups.tensor_scales(values))
            after = words_in(live.model)
            live.restore()
            restored = words_in(live.model)
    assert any((before[key] != words).any() for key, words in expected.items())
    assert after.keys() == restored.keys() == expected.keys()
    for key, words in expected.items():
        assert np.array_equal(after[key], words), key
        assert np.array_equal(restored[key], before[key]), key


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


def squares(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = model(input_ids=tokens, use_cache=False).logits.square().mean()
    return loss


def scale_gradients(
    folder: Path, recipe: Recipe | MergeRecipe, way: str, texts: list[torch.Tensor], together: bool
) -> dict[str, list[float]]:
    """The gradients of :func:`squares`, summed over texts that pass the model together or not."""
    with open_checkpoint(folder / "base") as base, Runtime(1) as runtime:
        found = gather_entries(base, sources(folder, recipe), recipe, runtime)
        with open_live(base, torch.float32, found.entries, way) as live:
            gradients = live.gradients()
            terms = [Term(partial(squares, live.model, tokens), 0.5) for tokens in texts]
            for each in [terms] if together else [[term] for term in terms]:
                Pass(live.model, each, gradients, HeldBoundaries(), not together).run()
    return gradients.by_tensor()


@pytest.mark.parametrize("models", ["folder", "tied"])
@pytest.mark.parametrize("name", RECIPES)
def test_all_ways_to_take_gradients_give_the_same_bits(
    name: str, models: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(models)
    texts = [torch.arange(1, 12)[None], torch.arange(9, 2, -1)[None], torch.arange(3, 6)[None]]
    taken = [
        scale_gradients(folder, RECIPES[name], way, texts, together)
        for way in WAYS
        for together in (True, False)
    ]
    assert all(one == taken[0] for one in taken)
    assert all(any(each) for each in taken[0].values())


@pytest.mark.parametrize("models", ["folder", "tied"])
@pytest.mark.parametrize("name", RECIPES)
def test_the_gradients_of_scales_are_those_along_the_deltas(
    name: str, models: str, request: pytest.FixtureRequest
) -> None:
    """Against plain backpropagation, and deltas taken from the files."""
    recipe, folder = RECIPES[name], request.getfixturevalue(models)
    with open_checkpoint(folder / "base") as base, Runtime(1) as runtime:
        found = gather_entries(base, sources(folder, recipe), recipe, runtime)
    tokens = torch.arange(1, 12)[None]
    plain = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    torch.autograd.backward(squares(plain, tokens) + squares(plain, tokens[:, :5]))
    texts = [tokens, tokens[:, :5]]
    gradients = {
        tensor: [2 * one for one in each]
        for tensor, each in scale_gradients(folder, recipe, HELD, texts, together=False).items()
    }
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


def test_a_tied_tensor_that_is_stored_twice_takes_part_once(tmp_path: Path) -> None:
    write_models(tmp_path, tied=True)
    for model in ("base", "se", "osm"):
        path = tmp_path / model / "model.safetensors"
        tensors = load_file(path)
        save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, path)
    recipe = MergeRecipe("dare", density=0.5)
    with open_checkpoint(tmp_path / "base") as base, Runtime(1) as runtime:
        both = gather_entries(base, sources(tmp_path, recipe), recipe, runtime)
        with (
            pytest.raises(
                UnsupportedInputError, match=r"ties tensor .* to another that takes part"
            ),
            open_live(base, torch.bfloat16, both.entries, HELD),
        ):
            pass
        one = replace(recipe, exclude=("lm_head",))
        found = gather_entries(base, sources(tmp_path, one), one, runtime)
        with open_live(base, torch.bfloat16, found.entries, HELD) as live:
            assert len(live.entries) == len(both.entries) - 1


def test_a_tensor_that_the_model_does_not_use_cannot_take_part(tmp_path: Path) -> None:
    write_models(tmp_path)
    for model in ("base", "se", "osm"):
        path = tmp_path / model / "model.safetensors"
        save_file(load_file(path) | {"unused.weight": torch.rand(4, 4).bfloat16()}, path)
    recipe = MergeRecipe("dare", density=0.5)
    with open_checkpoint(tmp_path / "base") as base, Runtime(1) as runtime:
        found = gather_entries(base, sources(tmp_path, recipe), recipe, runtime)
        with (
            pytest.raises(UnsupportedInputError, match=r"'unused\.weight' is not a parameter"),
            open_live(base, torch.bfloat16, found.entries, STREAMED),
        ):
            pass


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
