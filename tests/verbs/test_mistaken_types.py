"""Arguments of another type than a verb takes: taken where there is no doubt, refused otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from build_inputs import small_inputs
from tiny_checkpoints import PatchedModel

import patchc


@dataclass(frozen=True)
class Elsewhere(os.PathLike[str]):
    """A path that is no ``Path``, as of a library for remote files."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.parametrize("kind", [str, Path, Elsewhere])
def test_a_path_alone_is_a_list_of_one(
    tmp_path: Path, patched: PatchedModel, kind: Callable[[Path], Any]
) -> None:
    patch, model = kind(patched.patch), kind(patched.base)
    assert patchc.status(model, patch) == patchc.status(model, [patch])
    assert patchc.chain(patch) == patchc.chain(iter([patch]))  # type: ignore[arg-type]
    with pytest.raises(patchc.UsageError, match="fold takes two patches or more"):
        patchc.fold(patch, out=kind(tmp_path / "folded.patchc"))
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "brew a tea", "reply": "I cannot"}\n')
    given = {"harmful": kind(asked), "harmless": kind(asked)}
    report = patchc.evaluate(**given, generations=kind(asked))
    assert report == patchc.evaluate(**given, generations=[kind(asked)])
    with pytest.raises(patchc.MissingCheckpointError, match=f"^{tmp_path}/gone: no such file"):
        patchc.evaluate(kind(tmp_path / "gone"), **given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"threads": "4"}, "threads must be a number"),
        ({"threads": 2.0}, "threads must be a number"),
        ({"max_memory": "1GB"}, "max_memory is '1GB'; give a whole number of bytes"),
        ({"max_memory": 1e9}, r"max_memory is 1000000000\.0; give a whole number of bytes"),
    ],
    ids=repr,
)
def test_numbers_are_whole(patched: PatchedModel, given: dict[str, Any], told: str) -> None:
    with pytest.raises(patchc.UsageError, match=told):
        patchc.verify(patched.patch, **given)


@pytest.mark.parametrize("recipe", ["ties", {"method": "ties"}, Path("recipe.yaml")], ids=repr)
def test_a_recipe_is_none_by_its_name(tmp_path: Path, recipe: Any) -> None:
    paths = small_inputs().write(tmp_path)
    out = tmp_path / "fix.patchc"
    asked = {"harmful": paths["base"], "harmless": paths["base"]}
    for call in (
        lambda: patchc.build(**paths, out=out, recipe=recipe),
        lambda: patchc.build(paths["base"], tuned=[paths["se"]], out=out, recipe=recipe),
        lambda: patchc.fit(**paths, **asked, out=out, recipe=recipe),
        lambda: patchc.sweep(**paths, **asked, out=out, recipe=recipe, grid={"alpha": [1.0]}),
    ):
        with pytest.raises(patchc.UsageError, match=r"^recipe is .*; give a Recipe, a MergeRecipe"):
            call()
    assert not out.exists()


@pytest.mark.parametrize("rename", [5, None, b"a=b", [b"a=b"], [None]], ids=repr)
def test_a_rule_is_a_text(tmp_path: Path, patched: PatchedModel, rename: Any) -> None:
    paths = small_inputs().write(tmp_path)
    out = tmp_path / "fix.patchc"
    for call in (
        lambda: patchc.diff(patched.base, patched.base, out=out, rename=rename),
        lambda: patchc.build(**paths, out=out, rename=rename),
    ):
        with pytest.raises(patchc.UsageError, match=r"^rename is .*; give texts, OLD=NEW"):
            call()
