"""Inputs and the oracle of additive patches, in plain NumPy and Python; nothing imports patchc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import selection_oracle as oracle
from numpy.typing import NDArray
from tiny_checkpoints import normal, write_model

LAYERS = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)]
NORM = "model.norm.weight"
SHAPE = (50, 100)
RETAIN, TOP_SE, TOP_OSM, ALPHA, BETA, SEED = 0.5, 0.2, 0.15, 6.0, 10.0, 3

Arrays = dict[str, NDArray]
Scales = tuple[float, float]
UNSCALED = (1.0, 1.0)


@dataclass(frozen=True)
class Inputs:
    """What a build reads, in memory and on disk."""

    base: Arrays
    tuned: dict[str, Arrays]
    scores: dict[str, Arrays]
    paths: dict[str, Path]


def write_inputs(folder: Path, dtype: str = "BF16") -> Inputs:
    """Two scored tensors and one that takes no part; tuned weights in fp32, in two shards."""
    rng = np.random.default_rng(11)
    base = {name: normal(SHAPE, dtype, i) for i, name in enumerate(LAYERS)}
    base[NORM] = normal((100,), dtype, 9)
    tuned: dict[str, Arrays] = {"se": {}, "osm": {}}
    scores: dict[str, Arrays] = {"se": {}, "osm": {}}
    paths = {"base": write_model(folder / "base", base, shards=2)}
    for part, held in tuned.items():
        for name in base:
            noise = rng.normal(scale=2e-3, size=base[name].shape).astype(np.float32)
            held[name] = base[name].astype(np.float32) + noise
        for name in LAYERS:
            scores[part][name] = rng.exponential(size=SHAPE).astype(np.float32)
        # An entry of the highest score that did not move: selected, and not stored.
        scores[part][LAYERS[0]].ravel()[7::1000] = 1e6
        held[LAYERS[0]].ravel()[7::1000] = base[LAYERS[0]].astype(np.float32).ravel()[7::1000]
        paths[part] = write_model(folder / part, held, shards=2)
        write_model(folder / part, scores[part], stem="scores")
    return Inputs(base, tuned, scores, paths)


def coded(deltas: NDArray[np.float32], value_type: str) -> NDArray[np.float32]:
    """Deltas after their storage, block by block and entry by entry."""
    if value_type == "bf16":
        return deltas.astype(ml_dtypes.bfloat16).astype(np.float32)
    out = np.empty_like(deltas)
    for start in range(0, len(deltas), 256):
        block = deltas[start : start + 256]
        largest = np.float32(max(abs(value) for value in block))
        for i, value in enumerate(block):
            scaled = np.float32(np.float32(value / largest) * np.float32(127))
            whole = round(float(scaled))  # Python rounds halves to even
            out[start + i] = np.float32(whole) * np.float32(largest / np.float32(127))
    return out


def selections(inputs: Inputs, name: str) -> list[NDArray[np.bool_]]:
    """The two difference sets of a tensor."""
    chosen = []
    size = inputs.base[name].size
    for part, top in (("se", TOP_SE), ("osm", TOP_OSM)):
        kept = oracle.retained(part, name, SEED, RETAIN, 0, size)
        count = min(int(top * size), int(kept.sum()))
        chosen.append(oracle.top_set(inputs.scores[part][name].ravel(), kept, count))
    return [chosen[0] & ~chosen[1], chosen[1] & ~chosen[0]]


def stored_deltas(
    inputs: Inputs, name: str, value_type: str, chunk_words: int, own: Scales = UNSCALED
) -> list[NDArray[np.float32]]:
    """Per component a value for each entry of a tensor, 0 where nothing is stored.

    ``own`` are the scales that are worked into the values before they are rounded.
    """
    origin = inputs.base[name].ravel().astype(np.float32)
    found = []
    for part, chosen, scale in zip(("se", "osm"), selections(inputs, name), own, strict=True):
        deltas = np.where(chosen, inputs.tuned[part][name].ravel() - origin, np.float32(0))
        deltas = np.float32(scale) * deltas
        for first in range(0, deltas.size, chunk_words):
            chunk = deltas[first : first + chunk_words]
            at = np.flatnonzero(chunk)
            chunk[at] = coded(chunk[at], value_type)
        found.append(deltas)
    return found


def merged(
    model: Arrays,
    inputs: Inputs,
    value_type: str,
    scales: Scales = (ALPHA, BETA),
    chunk_words: int = 1 << 20,
    own: Mapping[str, Scales] | None = None,
) -> Arrays:
    """The model after an apply with these scales; the model may be a descendant of the base.

    ``own`` are scales, none of them 0, that are worked into the values of single tensors.
    """
    result = dict(model)
    for name in LAYERS:
        values = model[name].ravel().astype(np.float32)
        origin = inputs.base[name].ravel().astype(np.float32)
        touched = np.zeros(values.size, np.bool_)
        worked_in = (own or {}).get(name, UNSCALED)
        deltas = stored_deltas(inputs, name, value_type, chunk_words, worked_in)
        for part, chosen, delta, scale in zip(
            ("se", "osm"), selections(inputs, name), deltas, scales, strict=True
        ):
            at = chosen & (inputs.tuned[part][name].ravel() != origin)
            values[at] = values[at] + np.float32(scale) * delta[at]
            touched |= at
        out = model[name].ravel().copy()
        out[touched] = values[touched].astype(out.dtype)
        result[name] = out.reshape(model[name].shape)
    return result
