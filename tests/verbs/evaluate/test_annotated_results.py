"""Measured results in a patch: the rates and digests of a report, of this patch and no other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from command_line import run
from evaluate_inputs import OPTIONS
from one_word_models import OPTIONS as WORDS
from one_word_models import Spoken, build_additive, say
from tiny_checkpoints import write_file

import patchc
from patchc import ResultsSummary
from patchc.errors import EvaluateError, MismatchError
from patchc.evaluation.summary import RATE_NAMES
from patchc.json_values import json_values

NAMED = replace(OPTIONS, judge="phrases")
SIDES = ["base", "result"]


@pytest.fixture
def measured(
    base: Path, fix: tuple[Path, Path], sets: dict[str, Path], tmp_path: Path
) -> tuple[patchc.EvaluateReport, Path]:
    """A report of the model without and with the patch, and the file of it."""
    report = patchc.evaluate([base], **sets, patch=fix[0], options=OPTIONS)
    (tmp_path / "report.json").write_text(json.dumps(json_values(report)))
    return report, tmp_path / "report.json"


def results_of(patch: Path, file: Path, out: Path) -> ResultsSummary:
    patchc.annotate(patch, results=file, out=out)
    found = patchc.inspect(out).annotation.results
    assert found is not None
    return found


def test_a_report_is_summarised(
    measured: tuple[patchc.EvaluateReport, Path], fix: tuple[Path, Path], sets: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    report, file = measured
    found = results_of(fix[0], file, tmp_path / "named.patchc")
    assert (found.source, found.judge) == ("evaluate", report.judge)
    assert found.file == blake3(file.read_bytes()).hexdigest()
    assert found.data == {name: blake3(p.read_bytes()).hexdigest() for name, p in sets.items()}
    assert [one.side for one in found.models] == SIDES
    for summary, model in zip(found.models, report.models, strict=True):
        assert (summary.model, summary.digest) == (model.model, model.digest)
        assert summary.rates == {name: getattr(model, name) for name in RATE_NAMES}
    assert found.changes == report.changes["base + fix.patchc"]
    text = json.dumps(patchc.inspect(tmp_path / "named.patchc").metadata)
    assert "brew" not in text  # no request and no reply


def test_a_results_file_is_counted(
    base: Path, fix: tuple[Path, Path], sets: dict[str, Path], tmp_path: Path
) -> None:
    patch, tuned = fix
    file = tmp_path / "results.jsonl"
    report = patchc.evaluate([base, tuned], **sets, out=file, options=NAMED)
    found = results_of(patch, file, tmp_path / "named.patchc")
    assert (found.source, found.judge, set(found.data)) == (
        "results",
        report.judge,
        {"evaluation"},
    )
    assert [one.side for one in found.models] == SIDES
    for summary, model in zip(found.models, report.models, strict=True):
        rates = {n: getattr(model, n) for n in RATE_NAMES if n != "degenerate"}
        assert (summary.digest, summary.rates) == (model.digest, rates)


def test_replies_with_other_line_ends_are_counted_too(
    fix: tuple[Path, Path], tmp_path: Path
) -> None:
    """A results file has a JSON object a line, and JSON may hold these as they are."""
    with patchc.open_patch(fix[0]) as opened:
        digests = opened.index.base_digest.hex(), opened.index.result_digest.hex()
    file = _results(tmp_path, [(one, "a\x85b\u2028c") for one in digests])
    found = results_of(fix[0], file, tmp_path / "named.patchc")
    assert [one.rates["harmful"].hits for one in found.models] == [1, 1]


def test_results_that_were_cut_off_are_refused(fix: tuple[Path, Path], tmp_path: Path) -> None:
    with patchc.open_patch(fix[0]) as opened:
        base, result = opened.index.base_digest.hex(), opened.index.result_digest.hex()
    file = _results(tmp_path, [(base, "one"), (base, "two"), (result, "one")])
    with pytest.raises(EvaluateError, match=r"not asked the same requests; finish that evaluation"):
        patchc.annotate(fix[0], results=file, out=tmp_path / "refused.patchc")


def _results(folder: Path, replies: list[tuple[str, str]]) -> Path:
    lines: list[dict[str, str]] = [{"kind": "evaluation", "inputs": "a" * 32}]
    for model, reply in replies:
        asked = {"set": "harmful", "request": "b" * 32, "prompt": "?", "verdict": "answered"}
        lines.append({"model": model, "reply": reply} | asked)
    file = folder / "results.jsonl"
    file.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines))
    return file


def test_a_patch_may_be_an_additive_one_or_have_other_chunks(
    measured: tuple[patchc.EvaluateReport, Path], base: Path, fix: tuple[Path, Path], tmp_path: Path
) -> None:
    """Then the report's digests are not those of the patch, and the report is believed."""
    other = tmp_path / "other.patchc"
    patchc.diff(base, fix[1], out=other, chunk_bits=12)
    found = results_of(other, measured[1], tmp_path / "named.patchc")
    assert [one.side for one in found.models] == SIDES


def test_a_patch_may_cover_a_draft_head_that_is_not_measured(
    base: Path, fix: tuple[Path, Path], sets: dict[str, Path], tmp_path: Path
) -> None:
    patch, models = tmp_path / "fix.patchc", [tmp_path / "with-head", tmp_path / "tuned"]
    for number, (model, source) in enumerate(zip(models, (base, fix[1]), strict=True)):
        shutil.copytree(source, model)
        write_file(model / "mtp.safetensors", {"mtp.norm": np.full(9, number, np.float32)})
    assert patchc.diff(*models, out=patch).beside
    report = patchc.evaluate([models[0]], **sets, patch=patch, options=OPTIONS)
    (tmp_path / "report.json").write_text(json.dumps(json_values(report)))
    found = results_of(patch, tmp_path / "report.json", tmp_path / "named.patchc")
    assert [one.model for one in found.models] == ["with-head", "with-head + fix.patchc"]


def test_results_of_another_patch_are_refused(
    measured: tuple[patchc.EvaluateReport, Path], base: Path, fix: tuple[Path, Path],
    sets: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    patchc.diff(fix[1], base, out=tmp_path / "back.patchc")
    back = results_of(tmp_path / "back.patchc", measured[1], tmp_path / "named.patchc")
    assert [one.side for one in back.models] == SIDES[::-1]  # both sides are there, turned round
    assert back.changes == {}  # that are the other patch's
    patchc.diff(base, base, out=tmp_path / "empty.patchc")
    alone = tmp_path / "alone.jsonl"
    patchc.evaluate([base], **sets, out=alone, options=NAMED)
    with pytest.raises(MismatchError, match=r"no results of a model with .* name results that"):
        patchc.annotate(fix[0], results=alone, out=tmp_path / "refused.patchc")
    assert not (tmp_path / "refused.patchc").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"models": []}, {"models": [{}]}, {"models": None}, {"judge": 7}, {"changes": []},
        {"judge": "x" * 500}, {"data": {"harmful": "reply"}},
        {"models": [{"model": "base", "digest": None, "patch": None}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_report_is_refused(
    measured: tuple[patchc.EvaluateReport, Path], fix: tuple[Path, Path], tmp_path: Path,
    change: dict[str, Any],
) -> None:  # fmt: skip
    file = measured[1]
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises((EvaluateError, MismatchError), match=r"report\.json: no results"):
        patchc.annotate(fix[0], results=file, out=tmp_path / "refused.patchc")
    file.write_text("{")
    code, _, told = run("annotate", fix[0], "--results", file, "-o", tmp_path / "no.patchc")
    assert code == 18
    assert "name what `patchc evaluate --json` printed" in told
    assert not list(tmp_path.glob("*.patchc"))


@pytest.mark.parametrize("value", [7, float("nan"), float("inf"), 1e308, "x"], ids=str)
def test_a_change_that_is_none_is_refused(
    measured: tuple[patchc.EvaluateReport, Path], fix: tuple[Path, Path], tmp_path: Path, value: Any
) -> None:
    content = json.loads(measured[1].read_text())
    content["changes"]["base + fix.patchc"]["harmful"]["low"] = value
    measured[1].write_text(json.dumps(content))
    with pytest.raises(EvaluateError, match=r"report\.json: no results"):
        patchc.annotate(fix[0], results=measured[1], out=tmp_path / "refused.patchc")


def test_more_hits_than_requests_are_refused(
    measured: tuple[patchc.EvaluateReport, Path], fix: tuple[Path, Path], tmp_path: Path
) -> None:
    content = json.loads(measured[1].read_text())
    content["models"][1]["harmful"]["hits"] = 10**6
    measured[1].write_text(json.dumps(content))
    with pytest.raises(EvaluateError, match="is no rate"):
        patchc.annotate(fix[0], results=measured[1], out=tmp_path / "refused.patchc")


def test_the_command_shows_and_removes_results(
    measured: tuple[patchc.EvaluateReport, Path], fix: tuple[Path, Path], tmp_path: Path
) -> None:
    named, bare = tmp_path / "named.patchc", tmp_path / "bare.patchc"
    code, told, _ = run("annotate", fix[0], "--results", measured[1], "-o", named)
    assert code == 0
    for text in (told, run("inspect", named)[1]):
        assert "results that its writer measured" in text
        assert "patched − base" in text
        assert measured[0].models[1].harmful.percent in text
    assert run("annotate", named, "--results", "", "-o", bare)[0] == 0
    assert patchc.inspect(bare).annotation.results is None
    assert bare.read_bytes() == fix[0].read_bytes()


def test_models_of_a_chain_are_on_a_side_only_by_their_digests(
    spoken: Spoken, tmp_path: Path
) -> None:
    """An additive patch has none, and most models of the report are not the one with it."""
    tuned = say(tmp_path / "tuned", "sage", 3.0)
    additive = build_additive(spoken.base, tuned, tmp_path / "additive.patchc")
    report = patchc.evaluate(
        spoken.base, **spoken.sets, turns=spoken.patches[:2], together=additive, options=WORDS
    )
    file = tmp_path / "report.json"
    file.write_text(json.dumps(json_values(report)))
    found = results_of(additive, file, tmp_path / "named.patchc")
    assert [one.model for one in found.models] == [one.model for one in report.models]
    assert {one.side for one in found.models} == {None}
    card = patchc.model_card(tmp_path / "named.patchc")
    assert "|  | model 1 | model 2 | model 3 | model 4 |\n" in card
    assert "- model 4: `base + additive.patchc (together)`" in card
    found = results_of(spoken.patches[1], file, tmp_path / "exact.patchc")
    assert [one.model for one in found.models] == ["base + a.patchc", "… + b.patchc"]
    assert [one.side for one in found.models] == SIDES
    assert "|  | base | patched |\n" in patchc.model_card(tmp_path / "exact.patchc")
