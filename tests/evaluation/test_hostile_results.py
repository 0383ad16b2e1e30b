"""Results files and reports that are damaged, or a stranger's: the file and the line or key."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchc.errors import EvaluateError, OutputError
from patchc.evaluation.journal import open_journal
from patchc.evaluation.rates import Rate
from patchc.evaluation.summary import parse_summary, read_summary
from patchc.evaluation.trials import Trial, decode_trial, encode_trial, open_trials

HALF = Rate(1, 2)
TRIAL = Trial(
    recipe={"alpha": 1.0}, harmful=HALF, over_refusal=HALF, misanswered=HALF, utility=None,
    degenerate=HALF, perplexity=1.5, outcomes={"harmful": ("answered", "refused")},
)  # fmt: skip
HIDDEN = "a\x1b[31m\x7f\x9b\u202e\u2066\u200b\u2028\U000e0041\u3164b"


def entries(path: Path, **inputs: Any) -> list[Any]:
    with open_journal(path, "test", inputs or {"seed": 1}, dict, dict) as journal:
        return [*journal.all()]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "Expecting property name"),
        (b"1", "TypeError"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1e999}', "1e999 is beyond every number"),
        (b'{"a": 1' + 30 * b"0" + b"}", "takes more than 64 bits"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b"[" * 100_000, "nested more than 64 deep"),
        (b'{"a": "\\ud800"}', "half a character"),
        (b"\xff", "not UTF-8"),
        (b'{"' + b"k" * 1_000_000 + b'": NaN}', "NaN is not JSON"),
    ],
)
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / "journal.jsonl"
    entries(path)
    content = path.read_bytes() + b'{"a": 1}\n' + line + b"\n"
    path.write_bytes(content)
    message = rf"^{re.escape(str(path))}:3: not a line of test results; .*{why}"
    with pytest.raises(EvaluateError, match=message) as refused:
        entries(path)
    assert len(str(refused.value)) < 600
    assert path.read_bytes() == content


def test_lines_hold_no_character_that_a_screen_acts_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path, "test", {"system": HIDDEN}, dict, dict) as journal:
        journal.add({"reply": HIDDEN, "text": "Größe 漢字"})
    text = path.read_text(encoding="utf-8")
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "Größe 漢字" in text
    assert entries(path, system=HIDDEN) == [{"reply": HIDDEN, "text": "Größe 漢字"}]


def test_a_file_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """It holds such characters as they are."""
    path = tmp_path / "journal.jsonl"
    lines = [{"kind": "test", "inputs": {"system": HIDDEN}}, {"reply": HIDDEN}]
    earlier = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(earlier, encoding="utf-8", newline="\n")
    with open_journal(path, "test", {"system": HIDDEN}, dict, dict) as journal:
        journal.add({"reply": HIDDEN}, {"reply": "new"})
        assert [*journal.all()] == [{"reply": HIDDEN}, {"reply": "new"}]
    assert path.read_text(encoding="utf-8") == earlier + '{"reply": "new"}\n'
    with pytest.raises(EvaluateError, match="results of other inputs: system"):
        entries(path, system=HIDDEN[1:])


def test_a_file_takes_no_more_memory_than_its_size_and_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    entries(path)
    tracemalloc.start()
    try:
        assert entries(path) == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        os.truncate(path, (1 << 30) + 1)
        with pytest.raises(
            EvaluateError, match=r"results\.jsonl: has more than 1,073,741,824 bytes"
        ):
            entries(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_file_is_no_journal(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(OutputError, match="is no file"):
            entries(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"harmful": [3, 2]}, {"harmful": [1]}, {"harmful": None}, {"harmful": {}},
        {"harmful": [0, 0]}, {"utility": 1}, {"perplexity": "high"}, {"perplexity": [1]},
        {"outcomes": []}, {"outcomes": {"harmful": ["maybe"]}}, {"unknown": 1},
        {"outcomes": {"other": ["refused"]}}, {"over_refusal": []},
    ],
)  # fmt: skip
def test_a_trial_of_wrong_types_is_named_by_its_line(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = tmp_path / "sweep.jsonl"
    with open_trials(path, {}) as trials:
        trials.add(TRIAL)
    with path.open("a") as file:
        file.write(json.dumps({**encode_trial(TRIAL), **changes}) + "\n")
    with pytest.raises(EvaluateError, match=r"sweep\.jsonl:3: not a line of sweep results"):
        open_trials(path, {}).__enter__()
    assert decode_trial(encode_trial(TRIAL)) == TRIAL


DIGEST = "0" * 64
REPORT: dict[str, Any] = {
    "judge": "phrases",
    "models": [
        {"model": "base", "digest": DIGEST, "patch": None, "harmful": {"hits": 1, "total": 2}}
    ],
    "changes": {},
}
RESULT = {
    "model": DIGEST, "set": "harmful", "request": "r", "prompt": "p", "reply": "x",
    "verdict": "refused",
}  # fmt: skip
HEADER = {"kind": "evaluation", "inputs": {"requests": DIGEST, "judge": "phrases"}}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda report: report.pop("models"), "models is missing"),
        (lambda report: report.pop("judge"), "judge is missing"),
        (lambda report: report.update(models=17 * report["models"]), "more than 16 models"),
        (lambda report: report.update(models=7), "not iterable"),
        (lambda report: report.update(judge="a\u202eb"), "a name is no line"),
        (lambda report: report.update(judge=1_000_000 * "a"), "a name is no line"),
        (lambda report: report["models"][0].update(digest="x"), "a digest is malformed"),
        (lambda report: report["models"][0].update(harmful={"hits": 2, "total": 1}), "no rate"),
        (lambda report: report["models"][0].update(harmful={"hits": True, "total": 1}), "no whole"),
        (lambda report: report["models"][0].pop("model"), "model is missing"),
    ],
)
def test_a_report_that_is_none_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], why: str
) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT))
    assert read_summary(path).models[0].rates["harmful"] == HALF
    report = json.loads(json.dumps(REPORT))
    change(report)
    path.write_text(json.dumps(report))
    with pytest.raises(EvaluateError, match=rf"report\.json: no results .*{why}") as refused:
        read_summary(path)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"verdict": "maybe"}, "line 3: 'maybe' is no verdict on harmful requests"),
        ({"verdict": 1_000_000 * "x"}, "line 3: 'xxx"),
        ({"set": "other"}, "line 3: other is missing"),
        ({"set": [1]}, "line 3: "),
        ({"model": 7}, "line 3: "),
        ({"model": "7"}, "line 3: a digest is malformed"),
    ],
)
def test_a_line_of_results_is_named(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = tmp_path / "results.jsonl"
    lines = [HEADER, RESULT, {**RESULT, **changes}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(EvaluateError, match=rf"results\.jsonl: no results .*{why}") as refused:
        read_summary(path)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("content", [None, 1, [], {}, "x", {"source": []}, {"source": "fix"}])
def test_a_summary_of_a_patch_that_is_none_is_left_out(content: object) -> None:
    assert parse_summary(content) is None
