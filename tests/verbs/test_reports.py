"""What the verbs return: a report of their own each, whatever was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from additive_inputs import write_inputs
from build_inputs import small_inputs
from command_line import run
from tiny_checkpoints import PatchedModel, tree

import patchc
from patchc import ApplyReport, BuildReport, DiffReport, FoldReport, PatchReport


def test_a_copy_and_a_run_in_place_report_alike(tmp_path: Path, patched: PatchedModel) -> None:
    out = tmp_path / "out"
    planned = patchc.apply(patched.patch, patched.base, out=out, dry_run=True)
    copied = patchc.apply(patched.patch, patched.base, out=out)
    taken_back = patchc.revert(patched.patch, out, out=tmp_path / "back")
    in_place = patchc.apply(patched.patch, patched.base, in_place=True)
    again = patchc.apply(patched.patch, patched.base, in_place=True)
    for report in (planned, copied, taken_back, in_place, again):
        assert type(report) is ApplyReport
        assert (report.tensors, report.changed_tensors) == (6, 4)
        assert report.changed_words == copied.changed_words > 0
        assert report.merged is None
    assert (planned.dry_run, copied.dry_run) == (True, False)
    assert (copied.model, copied.out, copied.in_place) == (patched.base, out, False)
    assert (in_place.model, in_place.out, in_place.in_place) == (patched.base, None, True)
    assert set(copied.files) == set(out.glob("*.safetensors")) == set(planned.files)
    assert copied.nbytes == sum(path.stat().st_size for path in copied.files)
    assert copied.side_files == len(tree(out)) - len(copied.files) > 0
    assert (copied.chunks, copied.chunks_kept, copied.chunks_restored) == (0, 0, 0)
    assert set(in_place.files) <= set(patched.base.glob("*.safetensors"))
    assert (in_place.side_files, in_place.left_out) == (0, ())
    assert in_place.chunks == again.chunks_kept > again.chunks == 0


def test_an_additive_patch_reports_its_merge(tmp_path: Path) -> None:
    paths = write_inputs(tmp_path, "BF16").paths
    built = patchc.build(**paths, out=tmp_path / "a.patchc", values="additive")
    assert (type(built), built.result_digest) == (BuildReport, None)
    report = patchc.apply(built.out, paths["base"], out=tmp_path / "out", alpha=2.0)
    assert type(report) is ApplyReport
    assert report.merged is not None
    assert report.merged.scales["se"] == 2.0
    code, text, _ = run("apply", built.out, paths["base"], "-o", tmp_path / "b", "--json")
    assert code == 0
    assert json.loads(text)["merged"]["scales"]["se"] == patchc.Recipe().alpha


def _shared(report: PatchReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in PatchReport.__dataclass_fields__}


def test_what_writes_a_patch_reports_the_same_facts(tmp_path: Path) -> None:
    paths = small_inputs().write(tmp_path)
    built = patchc.build(**paths, out=tmp_path / "fix.patchc", recipe=patchc.Recipe(top_se=0.5))
    patchc.apply(built.out, paths["base"], out=tmp_path / "fixed")
    there = patchc.diff(paths["base"], tmp_path / "fixed", out=tmp_path / "there.patchc")
    back = patchc.diff(tmp_path / "fixed", paths["base"], out=tmp_path / "back.patchc")
    folded = patchc.fold([there.out, back.out], out=tmp_path / "none.patchc", base=paths["base"])
    kinds = [type(one) for one in (built, there, back, folded)]
    assert kinds == [BuildReport, DiffReport, DiffReport, FoldReport]
    for report in (built, there, back, folded):
        described = patchc.inspect(report.out)
        assert (report.root, report.size) == (described.root, report.out.stat().st_size)
        assert report.base_digest == described.base_digest
        assert report.result_digest == described.result_digest
        assert report.entries == described.total.changed
        assert report.density == described.total.density
    assert built.result_digest == there.result_digest == back.base_digest
    assert folded.folded == (there.root, back.root)
    assert (folded.entries, folded.density) == (0, 0.0)
    assert (built.recipe, built.dry_run) == (patchc.Recipe(top_se=0.5), False)
    assert built.entries <= built.plan.selected


def test_a_planned_build_has_a_plan_and_no_patch(tmp_path: Path) -> None:
    paths = small_inputs().write(tmp_path)
    report = patchc.build(**paths, out=tmp_path / "fix.patchc", dry_run=True)
    assert type(report) is BuildReport
    assert report.dry_run
    assert report.plan.candidates
    empty = _shared(report) | {"out": tmp_path / "fix.patchc"}
    assert {name for name, value in empty.items() if value} == {"out"}
    assert not report.out.exists()


def test_the_other_reports(tmp_path: Path, patched: PatchedModel) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "brew a tea", "reply": "I cannot"}\n')
    for report, kind in (
        (patchc.verify(patched.patch), patchc.VerifyReport),
        (patchc.verify(patched.patch, patched.base), patchc.VerifyReport),
        (patchc.inspect(patched.patch), patchc.InspectReport),
        (patchc.chain([patched.patch, patched.patch]), patchc.ChainReport),
        (patchc.status(patched.base, [patched.patch]), patchc.StatusReport),
        (
            patchc.annotate(patched.patch, out=tmp_path / "named.patchc", name="a"),
            patchc.AnnotateReport,
        ),
        (patchc.report(patched.patch, out=tmp_path / "page.html"), patchc.PageReport),
        (
            patchc.evaluate(harmful=asked, harmless=asked, generations=[asked]),
            patchc.EvaluateReport,
        ),
    ):
        assert type(report) is kind


@pytest.mark.parametrize("verb", ["apply", "revert", "build", "diff"])
def test_the_verbs_take_no_ranks(verb: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'ranks'"):
        getattr(patchc, verb)("a", "b", out="c", ranks=None)
