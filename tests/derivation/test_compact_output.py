"""Derived compact components: the same patches as from whole models, in a fraction of the bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import selection_oracle as oracle
from fit_inputs import says_ash, write_requests
from safetensors.torch import load_file
from tiny_checkpoints import names_of
from tiny_llama import write_base, write_data

import patchc
from patchc import DeriveOptions, MergeRecipe, Recipe
from patchc.checkpoint import open_checkpoint
from patchc.derivation.derive_options import TuneOptions
from patchc.derivation.held_tensors import written_bytes
from patchc.errors import UsageError
from patchc.recipe import Override, write_recipe

TUNING = TuneOptions(learning_rate=3e-3, steps=3, batch_size=3)
PAIR = DeriveOptions(
    se=TUNING, osm=TUNING, score_samples=3, device="cpu", scores=("weight", "base-delta"), seed=6
)
MARGIN = DeriveOptions(
    objective="margin",
    margin=replace(TUNING, learning_rate=1e-3, batch_size=8),
    seed=7,
    anchor_weight=0.0,
    score_samples=4,
    device="cpu",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, data, and whole models in ``whole``."""
    folder = tmp_path_factory.mktemp("work")
    write_base(folder / "base")
    write_requests(folder)
    write_data(folder / "data.jsonl")
    derive(folder, folder / "whole", PAIR)
    derive(folder, folder / "whole", MARGIN)
    return folder


def derive(work: Path, out: Path, options: DeriveOptions, recipe: Any = None) -> None:
    margin = options.objective == "margin"
    patchc.derive(
        work / "base",
        work / ("harmful.jsonl" if margin else "data.jsonl"),
        out,
        harmless=work / "harmless.jsonl" if margin else None,
        recipe=recipe,
        options=options,
        judge=says_ash,
    )


def check_same_patch(work: Path, compact: Path, recipe: Any, **models: str) -> None:
    """Build from the whole models and from the compact ones: a patch with changes, twice."""
    patches = []
    for folder in (work / "whole", compact):
        given = {
            name: [folder / one for one in value.split()] if name == "tuned" else folder / value
            for name, value in models.items()
        }
        out = compact / f"{folder.name}.patchc"
        out.unlink(missing_ok=True)
        report = patchc.build(work / "base", **given, out=out, recipe=recipe)
        assert report.entries > 0
        patches.append(out.read_bytes())
    assert patches[0] == patches[1]


@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 300])
def test_a_share_and_a_seed(work: Path, tmp_path: Path, shard_bytes: int) -> None:
    options = replace(PAIR, retain=0.3, retention_seed=11, shard_bytes=shard_bytes)
    derive(work, tmp_path / "out", options)
    for score in ("weight", "base-delta"):
        recipe = Recipe(retain=0.3, seed=11, score=score, top_se=0.2, top_osm=0.1)
        check_same_patch(work, tmp_path / "out", recipe, se="se", osm="osm")


def test_the_seed_of_the_derivation_is_the_default(work: Path, tmp_path: Path) -> None:
    derive(work, tmp_path / "out", replace(PAIR, retain=0.3))
    check_same_patch(work, tmp_path / "out", Recipe(retain=0.3, seed=6), se="se", osm="osm")


def test_a_recipe_with_overrides(work: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        retain=0.3, seed=2, score="base-delta", exclude=("layers.0.mlp",),
        overrides=(Override("q_proj", retain=0.9), Override("k_proj", retain=0.0)),
    )  # fmt: skip
    derive(work, tmp_path / "out", PAIR, recipe)
    check_same_patch(work, tmp_path / "out", recipe, se="se", osm="osm")


def test_a_merge_of_both_directions(work: Path, tmp_path: Path) -> None:
    """All tensors take part, embeddings and norms too."""
    recipe = MergeRecipe("dare", density=0.2, seed=4, weight=(1.0, -0.5))
    derive(work, tmp_path / "out", PAIR, recipe)
    check_same_patch(work, tmp_path / "out", recipe, tuned="se osm")
    held = json.loads((tmp_path / "out/osm/component.json").read_text())
    with open_checkpoint(work / "base") as base:
        assert held["tensors"].keys() == base.tensors.keys()
    assert names_of(tmp_path / "out/osm") == [
        "component-counts.safetensors", "component.json", "component.safetensors", "derive.json",
    ]  # fmt: skip


def test_margin_that_tunes_what_a_merge_keeps(work: Path, tmp_path: Path) -> None:
    options = replace(MARGIN, retain=0.25)
    derive(work, tmp_path / "whole", replace(options, whole=True))
    derive(work, tmp_path / "out", options)
    recipe = MergeRecipe("dare", density=0.25, seed=7, rescale=False)
    (tmp_path / "base").symlink_to(work / "base")
    check_same_patch(tmp_path, tmp_path / "out", recipe, tuned="margin")
    again = tmp_path / "again"
    derive(work, again, MARGIN, recipe)
    for name in ("component.safetensors", "component-counts.safetensors", "component.json"):
        assert (again / "margin" / name).read_bytes() == (
            tmp_path / "out/margin" / name
        ).read_bytes()


@pytest.mark.parametrize(
    ("recipe", "models"),
    [
        (MergeRecipe("dare", density=0.2, seed=4), {"tuned": "margin"}),
        (Recipe(sets="se", retain=0.3, seed=4), {"se": "margin"}),
    ],
)
def test_margin_that_tunes_all_for_a_recipe(
    work: Path, tmp_path: Path, recipe: Any, models: dict[str, str]
) -> None:
    derive(work, tmp_path / "out", MARGIN, recipe)
    check_same_patch(work, tmp_path / "out", recipe, **models)


def test_it_holds_the_retained_entries_and_no_more(work: Path, tmp_path: Path) -> None:
    derive(work, tmp_path / "out", replace(PAIR, retain=0.1))
    whole = load_file(work / "whole/se/scores.safetensors")
    for stem, of in (("component", "model"), ("component-scores-weight", "scores")):
        found = load_file(tmp_path / f"out/se/{stem}.safetensors")
        expected = load_file(work / f"whole/se/{of}.safetensors")
        assert found.keys() == whole.keys()
        for name, values in found.items():
            mask = oracle.retained("se", name, 6, 0.1, 0, expected[name].numel())
            assert values.tolist() == expected[name].flatten()[mask].tolist()


def test_the_expected_size_is_at_least_what_is_written_and_near_it(
    work: Path, tmp_path: Path
) -> None:
    options = replace(PAIR, retain=0.5)
    derive(work, tmp_path / "out", options)
    files = [path for path in (tmp_path / "out").rglob("component*.safetensors") if path.is_file()]
    written = sum(value.nbytes for path in files for value in load_file(path).values())
    with open_checkpoint(work / "base") as base:
        assert written <= written_bytes(base, options) <= 1.5 * written
        whole = sum(4 * tensor.words for tensor in base.tensors.values())
        assert written_bytes(base, PAIR) == whole * 3 * 2


def test_a_recipe_that_needs_every_entry_is_refused_first(work: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ties, which looks at every entry"):
        derive(work, tmp_path / "out", PAIR, MergeRecipe("ties"))
    assert not (tmp_path / "out").exists()


def test_the_command(work: Path, tmp_path: Path) -> None:
    from command_line import run

    recipe = Recipe(retain=0.3, seed=3)
    write_recipe(recipe, tmp_path / "r.toml")
    named = ["derive", work / "base", "--data", work / "data.jsonl", "--device", "cpu"]
    few = ["--se-steps", "2", "--osm-steps", "2", "--score-samples", "2", "--batch-size", "3"]
    for out, more in (
        ("a", ["--for", tmp_path / "r.toml"]),
        ("b", ["--retain", "0.3", "--retention-seed", "3"]),
    ):
        code, shown, errors = run(*named, *few, *more, "-o", tmp_path / out)
        assert code == 0, errors
        assert "the retained entries alone" in " ".join(shown.split())
    for part in ("se", "osm"):
        for name in names_of(tmp_path / "a" / part):
            if name != "derive.json":
                first, second = (tmp_path / out / part / name for out in "ab")
                assert first.read_bytes() == second.read_bytes()
    code, _, errors = run(*named, "--for", "ties", "-o", tmp_path / "c")
    assert (code, "looks at every entry" in " ".join(errors.split())) == (2, True)
