"""A model that is moved: each place is what NumPy makes of the files, and none leaves a trace."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from direction_oracle import direction_of
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny_llama import write_base
from transformers import AutoModelForCausalLM

from patchc.checkpoint import open_checkpoint
from patchc.errors import NumericError, UnsupportedInputError
from patchc.landscapes.directions import RandomDirection
from patchc.landscapes.movable import MovableModel
from patchc.landscapes.place import Place

SEED = 11
PATCHED = ("model.norm.weight", "model.embed_tokens.weight")
KINDS = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float16": np.float16}
PLACES = [
    Place(0.0, {"1": 0.5}),
    Place(1.0, {"1": -0.25}),
    Place(0.5),
    Place(1.5),
    Place(1.0),
    Place(-0.5, {"1": 0.125, "2": -1.0}),
    Place(1.0, {"1": 0.3, "2": 0.3}),
    Place(0.0, {"2": 1e-3}),
]


@pytest.fixture(scope="module", params=["bfloat16", "float32", "float16"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A dtype, and two models that differ in some tensors; their head and embeddings are tied."""
    folder = tmp_path_factory.mktemp("pair")
    base = write_base(folder / "base", tied=True)
    weights = load_file(base / "model.safetensors")
    kind = getattr(torch, request.param)
    generator = torch.Generator().manual_seed(2)
    for side in ("base", "patched"):
        for name in (
            weights if side == "base" else ("model.norm.weight", "model.embed_tokens.weight")
        ):
            noise = torch.randn(weights[name].shape, generator=generator)
            weights[name] = (weights[name].float() + 0.1 * noise).to(kind)
        weights["model.embed_tokens.weight"][3, 4] = -0.0
        (folder / side).mkdir(exist_ok=True)
        (folder / side / "config.json").write_bytes((base / "config.json").read_bytes())
        save_file(weights, folder / side / "model.safetensors", metadata={"format": "pt"})
    return request.param, folder / "base", folder / "patched"


@contextmanager
def movable(
    base: Path, patched: Path | None, kind: str, threads: int = 2
) -> Iterator[tuple[MovableModel, Any]]:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, kind))
    directions = {name: RandomDirection(SEED, name) for name in ("1", "2")}
    with open_checkpoint(base) as first, ThreadPoolExecutor(threads) as pool:
        if patched is None:
            yield MovableModel(model, first, None, directions, pool), model
            return
        with open_checkpoint(patched) as second:
            yield MovableModel(model, first, second, directions, pool), model


def stored(folder: Path) -> dict[str, NDArray[np.float64]]:
    weights = load_file(folder / "model.safetensors")
    return {name: value.double().numpy() for name, value in weights.items()}


def expected(place: Place, base: Path, patched: Path, kind: str) -> dict[str, NDArray[Any]]:
    """The place's weights by NumPy."""
    ends = stored(base), stored(patched)
    found = {}
    for name, values in ends[0].items():
        at = {0.0: values, 1.0: ends[1][name]}.get(place.patch)
        at = values + place.patch * (ends[1][name] - values) if at is None else at
        for number, alpha in place.moves.items():
            at = at + alpha * direction_of(SEED, number, name, values)
        found[name] = at.astype(np.float32).astype(KINDS[kind])
    return found


def words(model: Any) -> dict[str, torch.Tensor]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in named}


def same(model: Any, before: dict[str, torch.Tensor]) -> None:
    now = words(model)
    assert now.keys() == before.keys()
    for name, tensor in now.items():
        assert bits(tensor) == bits(before[name]), name


def bits(tensor: torch.Tensor) -> list[int]:
    found: list[int] = tensor.flatten().view(torch.uint8).tolist()
    return found


def test_every_place_is_that_of_the_oracle(pair: Any) -> None:
    kind, base, patched = pair
    with movable(base, patched, kind) as (moved, model):
        before = words(model)
        for place in PLACES:
            moved.move(place)
            now = words(model)
            for name, values in expected(place, base, patched, kind).items():
                found = now[name].float().numpy()
                assert np.array_equal(found, values.astype(np.float32)), (place, name)
            assert model.lm_head.weight is model.model.embed_tokens.weight
            for name, buffer in model.named_buffers():
                assert torch.equal(buffer, before[name]), name
            changed = {name for name in before if not torch.equal(now[name], before[name])}
            norms = {name for name in before if "norm" in name}
            touched = set() if place.patch == 0 else {"model.norm.weight"}
            assert changed & norms == touched
            if place.moves:
                assert changed - norms == dict(model.named_parameters()).keys() - norms
        moved.restore()
        same(model, before)


def test_without_a_random_direction_the_ends_are_the_files_words(pair: Any) -> None:
    kind, base, patched = pair
    with movable(base, patched, kind) as (moved, model):
        for patch, folder in ((1.0, patched), (0.0, base), (1.0, patched)):
            moved.move(Place(0.5, {"2": 0.3}))
            moved.move(Place(patch))
            now = words(model)
            for name, value in load_file(folder / "model.safetensors").items():
                assert bits(now[name]) == bits(value), name


def test_the_order_of_moves_and_threads_makes_no_difference(pair: Any) -> None:
    kind, base, patched = pair
    found = []
    for places, threads in ((PLACES, 1), (PLACES[::-1], 3), (PLACES[5:] + PLACES[:5], 2)):
        with movable(base, patched, kind, threads) as (moved, model):
            for place in places:
                moved.move(place)
            moved.move(PLACES[5])
            found.append(words(model))
    for other in found[1:]:
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())


def test_a_model_asked_in_fp32_has_the_places_of_its_bf16_words(pair: Any) -> None:
    kind, base, patched = pair
    with movable(base, patched, "float32") as (moved, model):
        for place in PLACES[:4]:
            moved.move(place)
            now = words(model)
            for name, values in expected(place, base, patched, "float32").items():
                assert np.array_equal(now[name].numpy(), values), (kind, name)


def test_weights_that_are_not_finite_are_refused_and_the_model_comes_back(pair: Any) -> None:
    kind, base, _ = pair
    with movable(base, None, kind) as (moved, model):
        before = words(model)
        for _ in range(2):
            with pytest.raises(NumericError, match=r"not finite at .*'1': 3e\+39.*smaller radius"):
                moved.move(Place(0.0, {"1": 3e39}))
        moved.restore()
        same(model, before)


def test_other_tensors_on_the_patched_side(pair: Any, tmp_path: Path) -> None:
    kind, base, patched = pair
    weights = load_file(patched / "model.safetensors")
    for change in ("shape", "dtype", "missing", "more"):
        changed = dict(weights)
        if change == "shape":
            changed["model.norm.weight"] = torch.ones(8, dtype=weights["model.norm.weight"].dtype)
        elif change == "dtype":
            changed["model.norm.weight"] = torch.ones(16, dtype=torch.float64)
        elif change == "missing":
            del changed["model.norm.weight"]
        else:
            changed["one.more"] = torch.ones(2)
        save_file(changed, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with (
            pytest.raises(UnsupportedInputError, match=r"norm\.weight|one\.more"),
            movable(base, tmp_path, kind),
        ):
            pass
