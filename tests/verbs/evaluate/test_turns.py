"""Patches that follow one another: rates by category, forgetting, and patches that are added."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from one_word_models import HARMFUL, OPTIONS, Spoken, build_additive, say
from tiny_llama import write_data
from transformers import AutoModelForCausalLM

import patchc
from patchc import Rate
from patchc.errors import MismatchError, UsageError
from patchc.evaluation.paired import compare


@pytest.fixture(scope="module")
def report(spoken: Spoken) -> patchc.EvaluateReport:
    return patchc.evaluate(spoken.base, **spoken.sets, turns=spoken.patches, options=OPTIONS)


def test_the_matrix_and_the_forgetting_are_those_counted_by_hand(
    spoken: Spoken, report: patchc.EvaluateReport
) -> None:
    turns = report.turns
    assert turns is not None
    assert turns.patches == ("a.patchc", "b.patchc", "c.patchc")
    assert turns.roots == tuple(patchc.inspect(path).root for path in spoken.patches)
    assert turns.categories == ("ash", "sage", "tea")
    assert turns.models == ("base", "base + a.patchc", "… + b.patchc", "… + c.patchc")
    assert turns.harmful == (
        {"ash": Rate(1, 2), "sage": Rate(3, 3), "tea": Rate(1, 1)},
        {"ash": Rate(0, 2), "sage": Rate(3, 3), "tea": Rate(1, 1)},
        {"ash": Rate(1, 2), "sage": Rate(0, 3), "tea": Rate(1, 1)},
        {"ash": Rate(2, 2), "sage": Rate(2, 3), "tea": Rate(0, 1)},
    )
    assert turns.over_refusal == (Rate(1, 3), Rate(0, 3), Rate(0, 3), Rate(2, 3))
    assert turns.utility == (Rate(0, 2), Rate(1, 2), Rate(0, 2), Rate(1, 2))
    assert turns.forgetting == pytest.approx({"ash": 1.0, "sage": 2 / 3, "tea": -1.0})
    for name, change in turns.forgetting_changes.items():
        assert change.difference == pytest.approx(turns.forgetting[name])
        assert change.low <= change.difference <= change.high
    assert turns.forgetting_changes["tea"].p_value == 1.0
    assert turns.together is None


def test_each_turn_is_compared_with_the_one_before_and_with_the_base(
    report: patchc.EvaluateReport,
) -> None:
    base, *after = report.models
    assert report.turns is not None
    expected = [compare(a.outcomes, b.outcomes) for a, b in pairwise(report.models)]
    assert list(report.turns.changes) == expected
    assert report.changes == {one.model: compare(base.outcomes, one.outcomes) for one in after}


def test_each_turn_is_the_model_that_its_patch_leads_to(
    spoken: Spoken, report: patchc.EvaluateReport
) -> None:
    facts = [patchc.inspect(path) for path in spoken.patches]
    digests = [facts[0].base_digest, *(one.result_digest for one in facts)]
    assert [one.digest for one in report.models] == digests
    assert {one.path for one in report.models} == {str(spoken.base)}
    assert [one.patch for one in report.models] == [None, *map(str, spoken.patches)]


def test_one_copy_is_patched_in_place_and_removed(
    spoken: Spoken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the model's own files cannot be written."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = []
    load = AutoModelForCausalLM.from_pretrained.__func__  # type: ignore[attr-defined]

    def look(cls: Any, *given: Any, **more: Any) -> Any:
        seen.append(len([*tmp_path.rglob("model.safetensors")]))
        return load(cls, *given, **more)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", classmethod(look))
    weights = spoken.base / "model.safetensors"
    weights.chmod(0o400)
    try:
        patchc.evaluate(spoken.base, **spoken.sets, turns=spoken.patches, options=OPTIONS)
    finally:
        weights.chmod(0o600)
    assert seen
    assert set(seen) == {1}
    assert not [*tmp_path.iterdir()]


def test_what_was_measured_is_not_asked_again(
    spoken: Spoken, report: patchc.EvaluateReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**spoken.sets, "out": tmp_path / "out.jsonl", "options": OPTIONS}
    patchc.evaluate(spoken.base, turns=spoken.patches[:2], **given)
    patchc.evaluate(spoken.models["3"], **given)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    assert patchc.evaluate(spoken.base, turns=spoken.patches, **given) == report


def test_requests_without_kinds_are_one_category(spoken: Spoken, tmp_path: Path) -> None:
    prompts = [{"prompt": p} for some in HARMFUL.values() for p in some]
    sets = {**spoken.sets, "harmful": write_data(tmp_path / "plain.jsonl", prompts)}
    del sets["utility"]
    found = patchc.evaluate(spoken.base, **sets, turns=spoken.patches[0], options=OPTIONS).turns
    assert found is not None
    assert found.categories == ("all",)
    assert found.harmful == ({"all": Rate(5, 6)}, {"all": Rate(4, 6)})
    assert found.forgetting == pytest.approx({"all": -1 / 6})
    assert found.utility == (None, None)


def test_additive_patches_of_the_base_are_added_and_compared_with_the_chain(
    spoken: Spoken, tmp_path: Path
) -> None:
    """Added, "ash" at 1 and "sage" at 3, less twice "mix" at 1, say "sage"."""
    base = spoken.base
    additive = [
        build_additive(base, say(tmp_path / word, word, loud), tmp_path / f"{word}.patchc")
        for word, loud in (("ash", 1.0), ("sage", 3.0))
    ]
    for order in (additive, additive[::-1]):
        report = patchc.evaluate(
            base, **spoken.sets, turns=spoken.patches, together=order, options=OPTIONS
        )
        turns, last, both = report.turns, *report.models[-2:]
        assert turns is not None
        assert turns.together is not None
        assert len(turns.models) == len(turns.harmful) == 4
        names = [path.name for path in order]
        assert turns.together.patches == tuple(names)
        assert turns.together.roots == tuple(patchc.inspect(path).root for path in order)
        assert turns.together.model == both.model == f"base + {' + '.join(names)} (together)"
        expected = {"ash": Rate(1, 2), "sage": Rate(0, 3), "tea": Rate(1, 1)}
        assert turns.together.harmful == expected
        assert (turns.together.over_refusal, turns.together.utility) == (Rate(0, 3), Rate(0, 2))
        assert turns.together.changes == compare(last.outcomes, both.outcomes)
        by_category = turns.together.changes_by_category
        assert {n: one.difference for n, one in by_category.items()} == pytest.approx(
            {"ash": -1 / 2, "sage": -2 / 3, "tea": 1.0}
        )
    with pytest.raises(UsageError, match=r"b\.patchc holds exact steps.* --values additive"):
        patchc.evaluate(
            base, **spoken.sets, turns=spoken.patches, together=[additive[0], spoken.patches[1]],
            options=OPTIONS,
        )  # fmt: skip


def test_a_chain_that_goes_on_after_an_additive_patch_or_with_another_file(
    spoken: Spoken, tmp_path: Path
) -> None:
    """Its next patch is checked when it is its turn; neither can be applied in place."""
    base, end = spoken.base, shutil.copytree(spoken.models["2"], tmp_path / "end")
    tuned = say(tmp_path / "tuned", "ash")
    additive = build_additive(base, tuned, tmp_path / "additive.patchc")
    (end / "notes.txt").write_text("notes\n")
    patchc.diff(spoken.models["1"], end, out=tmp_path / "next.patchc")
    given = {**spoken.sets, "options": OPTIONS}
    found = patchc.evaluate(base, turns=[additive, tmp_path / "next.patchc"], **given).turns
    assert found is not None
    assert [one["sage"].hits for one in found.harmful] == [3, 3, 0]
    with pytest.raises(MismatchError, match=r"c\.patchc does not follow .*additive\.patchc"):
        patchc.evaluate(base, turns=[additive, spoken.patches[2]], **given)
    patchc.apply(additive, base, out=tmp_path / "summed")
    patchc.diff(spoken.models["3"], tmp_path / "summed", out=tmp_path / "there.patchc")
    with pytest.raises(MismatchError, match=r"there\.patchc does not follow .*additive\.patchc"):
        patchc.evaluate(base, turns=[additive, tmp_path / "there.patchc"], **given)
