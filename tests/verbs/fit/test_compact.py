"""Fits of compact components: the steps and the patch are those of whole models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compact_inputs import write_component
from fit_inputs import write_models
from fit_runs import RECIPE, run
from safetensors.torch import load_file

from patchc import MergeRecipe
from patchc.errors import MismatchError, UsageError
from patchc.fitting.search import Range

DARE = MergeRecipe("dare", density=0.6, seed=5)


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base and whole models of the other fits, with compact ones of them beside."""
    folder = tmp_path_factory.mktemp("compact")
    base = write_models(folder, ("se", "osm"))
    for number, name in enumerate(("se", "osm")):
        tuned, scores = (
            {key: value.numpy() for key, value in load_file(folder / name / file).items()}
            for file in ("model.safetensors", "scores.safetensors")
        )
        held = {key: tuned[key] for key in scores}
        write_component(
            folder / f"compact-{name}", base, name, held, {"weight": scores}, RECIPE.seed,
            lambda _: RECIPE.retain,
        )  # fmt: skip
        write_component(
            folder / f"merge-{name}", base, f"model-{number}", tuned, {}, DARE.seed,
            lambda _: DARE.share,
        )  # fmt: skip
    return folder


def fit(models: Path, requests: dict[str, Path], out: Path, **more: Any) -> bytes:
    run(models, requests, out, **more)
    return out.read_bytes()


def test_of_safepatching(compact: Path, requests: dict[str, Path], tmp_path: Path) -> None:
    whole = fit(compact, requests, tmp_path / "whole.patchc")
    components = {"se": compact / "compact-se", "osm": compact / "compact-osm"}
    assert fit(compact, requests, tmp_path / "compact.patchc", **components) == whole
    first, second = ((tmp_path / f"{name}.toml").read_text() for name in ("whole", "compact"))
    assert first == second


def test_of_a_merge(compact: Path, requests: dict[str, Path], tmp_path: Path) -> None:
    of_merge = {"se": None, "osm": None, "recipe": DARE}
    patches = [
        fit(
            compact, requests, tmp_path / f"{kind}.patchc", **of_merge,
            tuned=[compact / f"{kind}se", compact / f"{kind}osm"],
        )
        for kind in ("", "merge-")
    ]  # fmt: skip
    assert patches[0] == patches[1]


def test_a_share_that_is_held_cannot_be_searched(
    compact: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "x.patchc"
    with pytest.raises(UsageError, match=r"retain cannot be searched: .*compact-osm is a compact"):
        fit(compact, requests, out, osm=compact / "compact-osm", search=[Range("retain", 0.1, 0.5)])
    with pytest.raises(UsageError, match=r"density cannot be searched: .*merge-se is a compact co"):
        fit(
            compact, requests, out, se=None, osm=None, recipe=DARE, tuned=compact / "merge-se",
            search=[Range("density", 0.1, 0.5)],
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_shares_of_top_sets_can_be_searched(
    compact: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"search": [Range("top_se", 0.1, 0.5)], "trials": 3}
    whole = fit(compact, requests, tmp_path / "whole.patchc", **given)
    components = {"se": compact / "compact-se", "osm": compact / "compact-osm"}
    assert fit(compact, requests, tmp_path / "compact.patchc", **components, **given) == whole


def test_another_recipe_is_refused_before_anything_is_asked(
    compact: Path, requests: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match="its seed is 5; set seed to 0"):
        fit(
            compact, requests, tmp_path / "x.patchc", se=compact / "compact-se",
            recipe=RECIPE.with_changes(seed=5),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
