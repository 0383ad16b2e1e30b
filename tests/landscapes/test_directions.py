"""Random directions: as an oracle has them, as long as the tensors, whoever computes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from direction_oracle import direction_of
from numpy.typing import NDArray

from patchc.landscapes.directions import CHUNK, RandomDirection, norm_of

Numbers = NDArray[np.float64]
NAME = "model.layers.3.mlp.up_proj.weight"


@cache
def tensor(words: int) -> Numbers:
    return np.random.default_rng(words).normal(0.01, 0.3, words)


def direction(
    words: int, name: str = NAME, seed: int = 3, number: str = "1", alpha: float = 1.0,
    threads: int = 2, steps: int = CHUNK,
) -> Numbers:  # fmt: skip
    """alpha · d by the code under test, in steps."""
    base, found = tensor(words), np.zeros(words)

    def read(first: int, values: Numbers) -> None:
        values[:] = base[first : first + values.size]

    one = RandomDirection(seed, number)
    with ThreadPoolExecutor(threads) as pool:
        one.measure(name, words, pool)
        norm = norm_of(read, words, pool)
    for first in range(0, words, steps):
        one.add(name, alpha, norm, first, found[first : first + steps])
    return found


@pytest.mark.parametrize("words", [1, 3, 4097, CHUNK + 5])
@pytest.mark.parametrize("name", ["lm_head.weight", "model.embed_tokens.weight", "größe.bias"])
def test_it_is_that_of_the_oracle_and_as_long_as_the_tensor(words: int, name: str) -> None:
    found = direction(words, name, seed=2**64 - 1, number="12")
    expected = direction_of(2**64 - 1, "12", name, tensor(words))
    assert np.abs(found - expected).max() <= 1e-13 * np.abs(expected).max()
    length = np.linalg.norm(tensor(words))
    assert np.linalg.norm(found) == pytest.approx(length, rel=1e-12)


def test_it_is_added_to_what_is_there() -> None:
    found, one = np.full(9, 5.0), RandomDirection(3, "1")
    with ThreadPoolExecutor(1) as pool:
        one.measure(NAME, 9, pool)
    one.add(NAME, -0.25, 7.0, 0, found)
    expected = 5.0 - 0.25 * 7.0 / np.linalg.norm(tensor(9)) * direction_of(3, "1", NAME, tensor(9))
    assert np.abs(found - expected).max() < 1e-14


def test_threads_and_steps_make_no_difference() -> None:
    words = 2 * CHUNK + 7
    whole = direction(words)
    for threads, steps in ((1, 4096), (5, CHUNK // 2)):
        assert direction(words, threads=threads, steps=steps).tobytes() == whole.tobytes()


def test_seeds_numbers_and_names_have_directions_of_their_own() -> None:
    words = 40_000
    others = (
        direction(words),
        direction(words, seed=4),
        direction(words, number="2"),
        direction(words, number="12"),
        direction(words, name=NAME.replace("3", "4")),
    )
    for one, other in combinations(others, 2):
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert abs(cosine) < 5 / np.sqrt(words)


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.0.input_layernorm.weight", "ln.LayerNorm.bias"]
)
def test_norms_stay(name: str) -> None:
    assert not direction(8, name).any()


def test_a_tensor_of_zeros_stays() -> None:
    one, found = RandomDirection(0, "1"), np.zeros(6)
    one.add("never.measured", 1.0, 0.0, 0, found)
    assert not found.any()
