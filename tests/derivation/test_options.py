"""The options of a derivation: what is refused, and how steps are counted."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from patchc.derivation.derive_options import DeriveOptions, Objective, TuneOptions
from patchc.errors import UsageError
from patchc.selection.compact.holding import Holding

TUNING: dict[str, Any] = {"learning_rate": 1e-3, "steps": 3}


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"learning_rate": "fast"},
        {"learning_rate": True},
        {"steps": 0},
        {"steps": 2.5},
        {"epochs": -1.0},
        {"batch_size": 0},
        {"batch_size": 65537},
        {"clip": 0.0},
        {"loss_ceiling": math.inf},
    ],
)
def test_options_of_tuning_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        TuneOptions(**TUNING | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": ()}, "directions"),
        ({"directions": ("se", "se")}, "directions"),
        ({"directions": ("up",)}, "directions is 'up'"),
        ({"scores": ("weight", "weight")}, "none twice"),
        ({"scores": ("snip",)}, "scores is 'snip'"),
        ({"optimizer": "sgd"}, "optimizer"),
        ({"device": "tpu"}, "device"),
        ({"precision": "float16"}, "precision"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"max_length": 0}, "max_length"),
        ({"score_samples": 0}, "score_samples"),
        ({"shard_bytes": 0}, "shard_bytes"),
        ({"objective": "both"}, "objective is 'both'"),
        ({"npo_beta": 0.0}, "npo_beta"),
        ({"margin_target": -1.0}, "margin_target"),
        ({"anchor_weight": -0.5}, "anchor_weight is -0.5; it must be a finite number, at least 0"),
        ({"anchor_weight": False}, "anchor_weight is False"),
        ({"anchor_weight": math.nan}, "anchor_weight"),
        ({"objective": "refusals", "refusal": " "}, "refusal"),
        ({"objective": "refusals", "refusal": "\udcff"}, "refusal: .* half a character"),
        ({"objective": "margin", "openings": ("",)}, "openings"),
        ({"objective": "margin", "openings": ("no", "\ud800")}, "openings: .* half a character"),
        ({"objective": "margin", "openings": "I cannot"}, "openings"),
        ({"refusal": "no"}, "refusal is for the objective refusals, and this one is pair"),
        ({"objective": "npo", "openings": ("no",)}, "openings is for the objective margin"),
        ({"objective": "npo", "directions": ("se",)}, "directions is for the objective pair"),
        ({"whole": True}, "whole is for the objective margin, and this one is pair"),
        ({"retain": 1.5}, "retain is 1.5"),
        ({"retention_seed": 3}, "retention_seed is given, and everything is retained; give retain"),
        ({"retain": 0.5, "retention_seed": -1}, "retention_seed is -1"),
        (
            {"objective": "margin", "retain": 0.5, "retention_seed": 3},
            "retention_seed is 3, and margin draws the entries that it tunes by seed, which is 0",
        ),
        (
            {"retain": 0.5, "compact": Holding(False, 0, 0.5)},
            "a recipe gives p and the seed of the draws; leave retain and retention_seed out",
        ),
        ({"margin": TuneOptions(1e-5, 4, batch_size=1)}, "margin: batch_size"),
    ],
)
def test_options_of_a_derivation_out_of_range_are_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        DeriveOptions(**change)


def test_epochs_replace_steps() -> None:
    tuning = TuneOptions(learning_rate=1.0, steps=99, epochs=1.5, batch_size=4)
    assert tuning.step_count(examples=10) == 4
    assert TuneOptions(learning_rate=1.0, steps=99).step_count(examples=10) == 99
    assert TuneOptions(learning_rate=1.0, steps=1, epochs=1e308).step_count(examples=100) == 2**63


def test_options_are_written_as_json() -> None:
    content = json.loads(json.dumps(DeriveOptions(include=("a",)).to_json()))
    assert content["include"] == ["a"]
    assert content["se"]["steps"] == 24


@pytest.mark.parametrize(
    ("objective", "folders", "weight"),
    [
        ("pair", ("se", "osm"), 0.0),
        ("refusals", ("se",), 0.0),
        ("answers", ("osm",), 0.0),
        ("npo", ("se",), 0.0),
        ("margin", ("margin",), 10.0),
    ],
)
def test_each_objective_has_its_folders_and_its_anchor(
    objective: Objective, folders: tuple[str, ...], weight: float
) -> None:
    options = DeriveOptions(objective=objective)
    assert options.folders == folders
    assert options.weight_of_anchor == weight
    assert DeriveOptions(objective=objective, anchor_weight=0.5).weight_of_anchor == 0.5
    assert DeriveOptions(objective=objective, anchor_weight=0.0).weight_of_anchor == 0.0
