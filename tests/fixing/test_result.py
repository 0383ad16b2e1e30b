"""What ``patchc.fix`` writes, against the verbs that it is made of."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fix_runs import FILES, OPTIONS, fix, given
from safetensors.numpy import load_file

import patchc
from patchc import DeriveOptions, MergeRecipe, Recipe
from patchc.checkpoint import open_checkpoint
from patchc.errors import MismatchError
from patchc.evaluation.near_duplicates import check_disjoint
from patchc.evaluation.requests import read_requests
from patchc.evaluation.splits import is_learned_from
from patchc.fixing.fix import plan_fix
from patchc.selection.compact.component_folder import is_compact
from patchc.selection.compact.holding import Holding
from patchc.stages import file_digest


def test_the_folder_holds_the_files_and_the_work(folder: Path) -> None:
    assert {path.name for path in (folder / "fixed").iterdir()} == {*FILES, "work"}


def test_the_page_is_the_one_that_report_writes_without_replies(
    folder: Path, tmp_path: Path
) -> None:
    out = folder / "fixed"
    replies = out / "work/replies/results.jsonl"
    results = [out / "report.json", out / "work/trace/fit.jsonl", replies]
    page = patchc.report(out / "fix.patchc", results, out=tmp_path / "page.html", replies=False)
    assert page.missing == ("landscape", "turns")
    assert page.out.read_bytes() == (out / "report.html").read_bytes()
    asked = {line["prompt"] for line in map(json.loads, replies.read_text().splitlines()[1:])}
    assert asked
    assert not any(prompt in page.out.read_text() for prompt in asked)


def test_the_figures_are_those_of_evaluate_on_the_test_split(folder: Path) -> None:
    test = folder / "fixed/work/split/test"
    report = fix(folder, folder / "fixed")
    measured = patchc.evaluate(
        [folder / "base"],
        **{name: test / f"{name}.jsonl" for name in ("harmful", "harmless", "utility")},
        reference=folder / "reference.txt",
        patch=folder / "fixed/fix.patchc",
        options=OPTIONS.asking,
    )
    assert report.test is not None
    for figures, model in zip(
        (report.test.base, report.test.patched), measured.models, strict=True
    ):
        for name in ("harmful", "over_refusal", "misanswered", "utility", "degenerate", "kinds"):
            assert getattr(figures, name) == getattr(model, name)
        assert figures.perplexity == pytest.approx(model.perplexity)
        assert figures.answer_perplexity == pytest.approx(model.answer_perplexity)
    assert [report.test.changes] == list(measured.changes.values())


def test_the_patch_is_the_recipe_s_and_fits_the_base(folder: Path, tmp_path: Path) -> None:
    out, report = folder / "fixed", fix(folder, folder / "fixed")
    recipe = patchc.read_recipe(out / "recipe.toml")
    patchc.build(
        folder / "base",
        tuned=[out / "work/derived/margin"],
        recipe=recipe,
        out=tmp_path / "again.patchc",
    )
    assert (tmp_path / "again.patchc").read_bytes() == (out / "fix.patchc").read_bytes()
    patchc.apply(out / "fix.patchc", folder / "base", out=tmp_path / "patched")
    assert patchc.verify(out / "fix.patchc", folder / "base").state == "base"
    assert patchc.verify(out / "fix.patchc", tmp_path / "patched").state == "patched"
    assert report.patch_bytes == (out / "fix.patchc").stat().st_size
    assert report.share == report.patch_bytes / report.model_bytes


def test_the_report_s_test_goes_into_the_patch(folder: Path, tmp_path: Path) -> None:
    out, report = folder / "fixed", fix(folder, folder / "fixed")
    assert report.test is not None
    named = tmp_path / "named.patchc"
    patchc.annotate(out / "fix.patchc", results=out / "report.json", out=named)
    found = patchc.inspect(named).annotation.results
    assert found is not None
    assert (found.source, found.judge, found.changes) == ("fix", report.judge, report.test.changes)
    assert [one.side for one in found.models] == ["base", "result"]
    for summary, figures in zip(found.models, (report.test.base, report.test.patched), strict=True):
        for name, rate in summary.rates.items():
            assert rate == getattr(figures, name)
    test = out / "work/split/test"
    assert found.data == {name: file_digest(test / f"{name}.jsonl") for name in report.data}
    assert len(found.data) == 3


def test_the_report_of_another_fix_of_this_base_stays_out(folder: Path, tmp_path: Path) -> None:
    out, report = folder / "fixed", fix(folder, folder / "fixed")
    patch = patchc.inspect(out / "fix.patchc")
    assert (report.base_digest, report.result_digest) == (patch.base_digest, patch.result_digest)
    changed = shutil.copytree(folder / "base", tmp_path / "changed")
    with (changed / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(bytes(4))
    other = tmp_path / "other.patchc"
    patchc.diff(folder / "base", changed, out=other)
    with pytest.raises(MismatchError, match="no results of a model with"):
        patchc.annotate(other, results=out / "report.json", out=tmp_path / "refused.patchc")


def test_the_parts_are_disjoint_and_hold_every_request(folder: Path) -> None:
    split = folder / "fixed/work/split"
    for name, file in (("harmful", "harmful.jsonl"), ("harmless", "harmless.jsonl")):
        whole = read_requests(folder / file, name)
        parts = [read_requests(split / part / file, name) for part in ("development", "test")]
        assert sorted(one.prompt for part in parts for one in part) == sorted(
            one.prompt for one in whole
        )
        assert check_disjoint(*parts) == []
        assert {one.kind for one in parts[1]} == {"even", "odd"}


def test_what_ends_the_fit_is_not_learned_from(folder: Path) -> None:
    work = folder / "fixed/work"
    for name in ("harmful", "harmless"):
        asked = read_requests(work / f"split/development/{name}.jsonl", name)
        marks = is_learned_from(asked, name, OPTIONS.fit.validation, OPTIONS.seed)
        learned = read_requests(work / f"learned/{name}.jsonl", name)
        assert [one.prompt for one in learned] == [
            one.prompt for one, inside in zip(asked, marks, strict=True) if inside
        ]
        assert len(learned) < len(asked)


def test_what_is_derived_is_compact_and_loses_nothing(folder: Path, tmp_path: Path) -> None:
    """A patch built from whole models, derived by the same options, is the very same."""
    out, learned = folder / "fixed", folder / "fixed/work/learned"
    assert is_compact(out / "work/derived/margin")
    patchc.derive(
        folder / "base",
        learned / "harmful.jsonl",
        tmp_path / "whole",
        harmless=learned / "harmless.jsonl",
        anchor=learned / "utility.jsonl",
        options=replace(OPTIONS.deriving, compact=None),
        judge=OPTIONS.asking.judge,
    )
    patchc.build(
        folder / "base",
        tuned=tmp_path / "whole/margin",
        recipe=patchc.read_recipe(out / "recipe.toml"),
        out=tmp_path / "whole.patchc",
    )
    assert (tmp_path / "whole.patchc").read_bytes() == (out / "fix.patchc").read_bytes()


def test_the_plan_knows_the_size_of_what_is_derived(folder: Path, tmp_path: Path) -> None:
    derived = folder / "fixed/work/derived"
    files = [load_file(path) for path in derived.rglob("*.safetensors")]
    written = sum(value.nbytes for file in files for value in file.values())
    options = {"compact": OPTIONS, "whole": replace(OPTIONS, recipe=MergeRecipe("ties"))}
    planned = {
        name: plan_fix(folder / "base", tmp_path / "x", **given(folder) | {"options": one})
        for name, one in options.items()
    }
    assert written <= planned["compact"].derived_bytes <= 1.5 * written
    with open_checkpoint(folder / "base") as base:
        words = sum(tensor.words for tensor in base.tensors.values())
    assert planned["whole"].derived_bytes == 4 * words


@pytest.mark.parametrize(
    ("objective", "recipe", "holding"),
    [
        ("margin", None, Holding(True, 3, 0.01)),
        ("margin", MergeRecipe("dare", density=0.2), Holding(True, 3, 0.2)),
        ("margin", Recipe(sets="se", retain=0.1), Holding(False, 3, 0.1)),
        ("pair", None, Holding(False, 3, 0.2)),
        ("pair", MergeRecipe("ties"), None),
        ("pair", Recipe(rank_among="all"), None),
    ],
)
def test_components_hold_what_the_recipe_reads(
    objective: Any, recipe: Any, holding: Holding | None
) -> None:
    options = patchc.FixOptions(DeriveOptions(objective=objective), recipe, seed=3)
    assert options.deriving.holding == holding
    assert options.deriving.retain == (0.01 if recipe is None and objective == "margin" else 1.0)
