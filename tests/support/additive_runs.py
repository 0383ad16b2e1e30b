"""Builds of additive patches with short chunks, and the model that the oracle expects of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from additive_inputs import (
    ALPHA,
    BETA,
    RETAIN,
    SEED,
    TOP_OSM,
    TOP_SE,
    Inputs,
)
from tiny_checkpoints import tree, write_model

import patchc
from patchc import Recipe

RECIPE = patchc.Recipe(
    retain=RETAIN, top_se=TOP_SE, top_osm=TOP_OSM, alpha=ALPHA, beta=BETA, seed=SEED
)
VALUE_TYPES = ["bf16", "int8"]


def build(
    inputs: Inputs, out: Path, value_type: str = "bf16", recipe: Recipe = RECIPE, **options: Any
) -> Path:
    arguments: dict[str, Any] = {"values": "additive", "value_type": value_type} | options
    patchc.build(**inputs.paths, out=out, recipe=recipe, **arguments)
    return out


def write_expected(folder: Path, tensors: dict[str, Any]) -> dict[str, tuple[int, bytes]]:
    return tree(write_model(folder, tensors, shards=2))
