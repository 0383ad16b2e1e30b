"""What ``patchc.fix`` writes, against the verbs that it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from fix_runs import FILES, OPTIONS, fix

import patchc
from patchc.evaluation.near_duplicates import check_disjoint
from patchc.evaluation.requests import read_requests
from patchc.evaluation.splits import is_learned_from


def test_the_folder_holds_the_three_files_and_the_work(folder: Path) -> None:
    assert {path.name for path in (folder / "fixed").iterdir()} == {*FILES, "work"}


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
