"""Additive patches applied to their base and to its descendants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from additive_inputs import (
    ALPHA,
    BETA,
    LAYERS,
    NORM,
    Inputs,
    merged,
)
from additive_runs import VALUE_TYPES, build, write_expected
from tiny_checkpoints import NUMPY, names_of, nudge, tree, write_model

import patchc
from patchc.errors import (
    WrongBaseError,
)


def test_a_dry_run_of_apply_writes_nothing(tmp_path: Path, inputs: Inputs, patch: Path) -> None:
    report = patchc.apply(
        patch, inputs.paths["base"], out=tmp_path / "patched", alpha=1, dry_run=True
    )
    assert not (tmp_path / "patched").exists()
    assert report.merged is not None
    assert report.merged.scales == {"se": 1.0, "osm": BETA}
    assert report.merged.differing_tensors is None


def descend(inputs: Inputs, names: list[str]) -> dict[str, Any]:
    """The base with some tensors tuned further."""
    return inputs.base | {name: nudge(inputs.base[name], 0.3, 21) for name in names}


@pytest.mark.parametrize("names", [[LAYERS[1]], [NORM], [*LAYERS, NORM]])
@pytest.mark.parametrize("value_type", VALUE_TYPES)
def test_a_descendant_is_merged_and_reported(
    tmp_path: Path, inputs: Inputs, names: list[str], value_type: str
) -> None:
    out = build(inputs, tmp_path / "fix.patchc", value_type, chunk_bits=12)
    tensors = descend(inputs, names)
    model = write_model(tmp_path / "further", tensors, shards=2)
    report = patchc.apply(out, model, out=tmp_path / "patched", onto_descendant=True, beta=4)
    wanted = merged(tensors, inputs, value_type, (ALPHA, 4.0), 4096)
    assert tree(tmp_path / "patched") == write_expected(tmp_path / "expected", wanted)
    assert report.merged is not None
    assert report.merged.onto_descendant
    assert report.merged.differing_tensors == len(names)
    assert sorted(report.merged.first_differing) == sorted(names)


def test_the_base_is_its_own_descendant(tmp_path: Path, inputs: Inputs, patch: Path) -> None:
    report = patchc.apply(
        patch, inputs.paths["base"], out=tmp_path / "patched", onto_descendant=True
    )
    wanted = merged(inputs.base, inputs, "bf16")
    assert tree(tmp_path / "patched") == write_expected(tmp_path / "expected", wanted)
    assert report.merged is not None
    assert (report.merged.differing_tensors, report.merged.first_differing) == (0, ())


@pytest.mark.parametrize("name", [*LAYERS, NORM])
def test_a_descendant_is_refused_unless_asked_for(
    tmp_path: Path, inputs: Inputs, patch: Path, name: str
) -> None:
    model = write_model(tmp_path / "further", descend(inputs, [name]), shards=2)
    before = names_of(tmp_path)
    with pytest.raises(WrongBaseError, match=f"{name!r}.*--onto-descendant"):
        patchc.apply(patch, model, out=tmp_path / "patched")
    assert names_of(tmp_path) == before


def missing(tensors: dict[str, Any]) -> None:
    del tensors[NORM]


def added(tensors: dict[str, Any]) -> None:
    tensors["extra.weight"] = np.ones(3, np.float32)


def reshaped(tensors: dict[str, Any]) -> None:
    tensors[NORM] = tensors[NORM].reshape(10, 10)


def retyped(tensors: dict[str, Any]) -> None:
    tensors[LAYERS[1]] = tensors[LAYERS[1]].astype(NUMPY["F16"])


@pytest.mark.parametrize("change", [missing, added, reshaped, retyped])
def test_a_descendant_has_the_same_names_shapes_and_dtypes(
    tmp_path: Path, inputs: Inputs, patch: Path, change: Any
) -> None:
    tensors = dict(inputs.base)
    change(tensors)
    model = write_model(tmp_path / "other", tensors)
    before = names_of(tmp_path)
    with pytest.raises(WrongBaseError):
        patchc.apply(patch, model, out=tmp_path / "patched", onto_descendant=True)
    assert names_of(tmp_path) == before
