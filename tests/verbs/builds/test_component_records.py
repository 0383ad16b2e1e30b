"""Components know their base and their direction: builds refuse those that do not fit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_inputs import LAYER_0, NORM, Inputs, random_inputs
from command_line import run
from compact_inputs import write_components
from component_records import write_record
from tiny_checkpoints import names_of, nudge, write_model

import patchc
from patchc import MergeRecipe, Recipe
from patchc.errors import CheckpointError, MismatchError

FORMS = ["whole", "compact"]
SHARE, SEED = 0.5, 3
RECIPE = Recipe(retain=SHARE, seed=SEED, top_se=0.4, top_osm=0.4)
DIGEST = "a" * 64


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """One tensor is longer than what is read of it to tell bases apart at once."""
    return random_inputs({LAYER_0: (50, 100), NORM: (10,)}, unscored=(NORM,))


@pytest.fixture(params=FORMS)
def models(request: pytest.FixtureRequest, tmp_path: Path, inputs: Inputs) -> dict[str, Path]:
    """A base, and components with records, whole or compact."""
    if request.param == "whole":
        paths = inputs.write(tmp_path)
    else:
        paths = write_components(tmp_path, inputs, SEED, lambda _: SHARE)
    for part in ("se", "osm"):
        write_record(paths[part], paths["base"], part)
    return paths


def build(models: dict[str, Path], **more: Any) -> patchc.BuildReport:
    given: dict[str, Any] = {**models, "recipe": RECIPE, **more}
    return patchc.build(**given, out=models["base"].parent / "out" / "fix.patchc")


def refuse(models: dict[str, Path], error: type[Exception], message: str, **more: Any) -> None:
    before = names_of(models["base"].parent)
    with pytest.raises(error, match=message):
        build(models, **more)
    assert names_of(models["base"].parent) == before


def other_base(inputs: Inputs, folder: Path, first: int) -> Path:
    """The base with other words in one tensor, from a word on."""
    tensors = dict(inputs.base)
    words = tensors[LAYER_0].copy().ravel()
    words[first:] = nudge(words[first:], 1.0, 5)
    return write_model(folder, tensors | {LAYER_0: words.reshape(50, 100)})


def test_components_that_fit_are_taken_without_a_note(models: dict[str, Path]) -> None:
    report = build(models)
    assert report.entries > 0
    assert report.notes == ()


def test_swapped_components_are_refused_by_name(models: dict[str, Path]) -> None:
    swapped = models | {"se": models["osm"], "osm": models["se"]}
    message = r"osm: this is a component for over-safety .* given as --se; swap --se and --osm"
    refuse(swapped, MismatchError, message)
    refuse(swapped, MismatchError, message, dry_run=True)
    alone = models | {"osm": models["se"]}
    refuse(alone, MismatchError, "se: this is a component for safety .* given as --osm")


def test_the_margin_s_component_is_one_for_se(models: dict[str, Path]) -> None:
    write_record(models["se"], models["base"], "margin")
    assert build(models).entries > 0
    refuse(models | {"osm": models["se"]}, MismatchError, "given as --osm")


def test_another_base_is_refused_at_once(models: dict[str, Path], inputs: Inputs) -> None:
    base = other_base(inputs, models["base"].with_name("other"), 0)
    message = "se: this.* component was derived from another base than .*other.* name that base"
    refuse(models | {"base": base}, MismatchError, message, dry_run=True)


@pytest.mark.parametrize("more", [{}, {"values": "additive"}, {"chunk_bits": 12}], ids=str)
def test_a_base_that_differs_further_on_is_refused_before_the_patch_appears(
    models: dict[str, Path], inputs: Inputs, more: dict[str, Any]
) -> None:
    base = other_base(inputs, models["base"].with_name("other"), 4096)
    message = r"se: this component was derived from another base than .*other \(from 'base', digest"
    refuse(models | {"base": base}, MismatchError, message, **more)


def test_merges_refuse_another_base_and_take_every_direction(
    tmp_path: Path, inputs: Inputs
) -> None:
    paths = inputs.write(tmp_path)
    tuned = [paths["osm"], paths["se"]]
    recipe = MergeRecipe("task-arithmetic")
    report = patchc.build(paths["base"], tuned=tuned, out=tmp_path / "1.patchc", recipe=recipe)
    assert report.notes == ()  # models that are no components have no record
    for part in ("se", "osm"):
        write_record(paths[part], paths["base"], part)
    patchc.build(paths["base"], tuned=tuned, out=tmp_path / "2.patchc", recipe=recipe)
    for first in (0, 4096):
        base = other_base(inputs, tmp_path / f"other-{first}", first)
        with pytest.raises(MismatchError, match="osm: this component was derived from another"):
            patchc.build(base, tuned=tuned, out=tmp_path / "3.patchc", recipe=recipe)
    assert not (tmp_path / "3.patchc").exists()


def test_components_without_a_record_are_taken_with_one_note(
    models: dict[str, Path], tmp_path: Path
) -> None:
    for part in ("se", "osm"):
        (models[part] / "derive.json").unlink()
    (note,) = build(models, dry_run=True).notes
    assert str(models["se"]) in note
    assert str(models["osm"]) in note
    recipe = tmp_path / "recipe.toml"
    patchc.recipe.write_recipe(RECIPE, recipe)
    out = tmp_path / "cli.patchc"
    words = "--se", models["se"], "--osm", models["osm"], "--recipe", recipe, "--json"
    code, told, warned = run("build", models["base"], *words, "-o", out)
    assert (code, json.loads(told)["notes"]) == (0, [note])
    assert warned.splitlines() == [f"patchc: warning: {note}"]
    assert out.exists()


def test_the_command_refuses_swapped_components(models: dict[str, Path], tmp_path: Path) -> None:
    words = "--se", models["osm"], "--osm", models["se"], "-o", tmp_path / "fix.patchc"
    code, _, told = run("build", models["base"], *words)
    assert code == 13
    assert "swap --se and --osm" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "[" * 100_000,
        '{"kind": "other"}',
        {"direction": "both"},
        {"direction": 7},
        {"base": ""},
        {"base": "x" * 256},
        {"base_digest": "abc"},
        {"base_sample": DIGEST[1:] + "G"},
        {"base_digest": None},
    ],
    ids=lambda content: str(content)[:40],
)
def test_a_damaged_record_is_an_error(models: dict[str, Path], content: Any) -> None:
    path = models["osm"] / "derive.json"
    if isinstance(content, str):
        path.write_text(content)
    else:
        write_record(models["osm"], models["base"], "osm", **content)
    refuse(models, CheckpointError, r"osm/derive\.json: not the record of a derivation \(.*remove")


def test_a_record_without_the_base_s_digest_is_an_error(models: dict[str, Path]) -> None:
    path = models["se"] / "derive.json"
    content = json.loads(path.read_text())
    del content["base_digest"]
    path.write_text(json.dumps(content))
    refuse(models, CheckpointError, "it has no base_digest.*derive the component again")


def test_a_record_that_is_no_file_is_an_error(models: dict[str, Path]) -> None:
    path = models["se"] / "derive.json"
    path.unlink()
    path.mkdir()
    refuse(models, CheckpointError, r"derive\.json: ")


def test_a_record_that_is_too_large_is_not_read_whole(models: dict[str, Path]) -> None:
    with (models["se"] / "derive.json").open("ab") as file:
        file.truncate(1 << 25)
    refuse(models, CheckpointError, r"se/derive\.json: cannot read: it has more than 4,194,304 b")


def test_a_base_whose_name_is_no_text_is_known_too(models: dict[str, Path]) -> None:
    base = models["base"].rename(models["base"].with_name(os.fsdecode(b"caf\xe9")))
    for part in ("se", "osm"):
        write_record(models[part], base, part)
    assert build(models | {"base": base}).notes == ()


def test_the_record_of_weights_that_are_given_as_a_file(tmp_path: Path, inputs: Inputs) -> None:
    paths = inputs.write(tmp_path)
    write_record(paths["se"], paths["base"], "osm")
    shutil.rmtree(paths["osm"])
    file = paths["se"] / "model.safetensors"
    with pytest.raises(MismatchError, match="given as --se"):
        patchc.build(paths["base"], se=file, recipe=Recipe(sets="se"), out=tmp_path / "1.patchc")


def test_only_components_that_the_recipe_reads_are_looked_at(models: dict[str, Path]) -> None:
    (models["osm"] / "derive.json").write_text("{")
    assert build(models, recipe=RECIPE.with_changes(sets="se")).entries > 0
    assert np.all([path.exists() for path in models.values()])
