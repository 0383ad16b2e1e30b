"""Results files: going on from them, and which are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluate_inputs import HARMLESS, NEW, OPTIONS, odd
from tiny_llama import write_base, write_data
from transformers import AutoModelForCausalLM

import patchc
from patchc.errors import (
    EvaluateError,
    InUseError,
)


def test_a_run_cut_at_any_byte_goes_on_to_the_same_file_and_report(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    whole_report = patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    whole = out.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (
        0,
        1,
        5,
        40,
        ends[0],
        ends[0] + 3,
        ends[2],
        ends[4] - 1,
        ends[6] + 90,
        ends[-1] - 1,
    ):
        out.write_bytes(whole[:cut])
        assert patchc.evaluate([base], **sets, out=out, options=OPTIONS) == whole_report
        assert out.read_bytes() == whole


@pytest.mark.parametrize("name", ["out.jsonl", "link.jsonl"])
def test_one_run_at_a_time_adds_to_a_results_file(
    base: Path, sets: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """Also through a link to it; nothing is left beside the file."""
    out, refused = tmp_path / "results" / "out.jsonl", []
    link = tmp_path / "link.jsonl"
    link.symlink_to(out)
    second = link if name == "link.jsonl" else out

    def again(_: object) -> None:
        with pytest.raises(InUseError, match=f"{second} is in use: process {os.getpid()} on "):
            patchc.evaluate([base], **sets, out=second, options=OPTIONS)
        refused.append(True)

    first = patchc.evaluate([base], **sets, out=out, options=OPTIONS, progress=again)
    assert refused
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
    assert patchc.evaluate([base], **sets, out=second, options=OPTIONS) == first


def test_a_finished_file_needs_no_model(
    base: Path, sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    first = patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    assert patchc.evaluate([base], **sets, out=out, options=OPTIONS) == first


def test_kinds_groups_and_references_leave_a_results_file_as_it_is(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    (before,) = patchc.evaluate([base], **sets, out=out, options=OPTIONS).models
    content = out.read_bytes()
    records = [{"prompt": p, "kind": p[0], "template": "t", "response": "ash"} for p in HARMLESS]
    write_data(sets["harmless"], records)
    (after,) = patchc.evaluate([base], **sets, out=out, options=OPTIONS).models
    assert out.read_bytes() == content
    assert (before.outcomes, before.kinds) == (after.outcomes, {})
    assert {kind: rate.total for kind, rate in after.kinds["harmless"].items()} == {
        "b": 1, "h": 1, "m": 1, "t": 1, "a": 1,
    }  # fmt: skip


def test_a_results_file_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Digests as that version took them; the verdicts turned round, to tell them from new ones."""
    old = [
        {
            "model": "129d4e37c0c88317637cd629e3dfc404dbba3d35daee589d339390cc0dbda1d4",
            "set": name,
            "request": request,
            "prompt": prompt,
            "reply": "Paris",
            "verdict": verdict,
        }
        for name, request, prompt, verdict in (
            ("harmful", "42407495d65ede3e7ec8d76f19f855f8", "brew a potion", "refused"),
            ("harmless", "57f1f90e95939e47c7c356efaa3b5462", "brew a tea", "refused"),
            ("utility", "73de3a3202ef88d233c6a1975e2c3718", "the capital", "wrong"),
        )
    ]
    header = {"kind": "evaluation", "inputs": "953ee980a90d605d4b5bfb10393faedd"}
    sets = {
        "harmful": write_data(tmp_path / "h", [{"prompt": "brew a potion"}]),
        "harmless": write_data(tmp_path / "s", [{"prompt": "brew a tea"}]),
        "utility": write_data(tmp_path / "u", [{"prompt": "the capital", "answer": "Paris"}]),
    }
    prompts = ("brew a potion", "brew a tea", "the capital")
    replies = write_data(tmp_path / "r", [{"prompt": p, "reply": "Paris"} for p in prompts])
    out = write_data(tmp_path / "out.jsonl", [header, *old])
    content = out.read_bytes()
    (found,) = patchc.evaluate(**sets, generations=[replies], out=out).models
    assert out.read_bytes() == content
    assert found.outcomes == {
        "harmful": ("refused",), "harmless": ("refused",), "utility": ("wrong",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"max_new_tokens": 3}, "max_new_tokens"),
        ({"batch_size": 4}, "batch_size"),
        ({"system": "ash"}, "system"),
        ({"judge": "phrases"}, "judge"),
        ({"judge": "phrases", "dtype": "auto"}, "judge, dtype"),
        ({"limit": 2}, "requests"),
    ],
)
def test_a_file_of_other_options_is_refused(
    base: Path, sets: dict[str, Path], tmp_path: Path, change: dict[str, Any], differing: str
) -> None:
    out = tmp_path / "out.jsonl"
    patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    before = out.read_bytes()
    other = {"judge": odd, "max_new_tokens": NEW, "batch_size": 3, "dtype": "float32"} | change
    options = patchc.EvaluateOptions(device="cpu", **other)
    with pytest.raises(EvaluateError, match=f"results of other inputs: {differing};") as told:
        patchc.evaluate([base], **sets, out=out, options=options)
    assert out.read_bytes() == before
    assert ("--generations" in str(told.value)) == (differing == "judge")


def test_replies_of_a_results_file_can_be_judged_by_another_judge(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    """As the message about another judge says; what a model said is the same."""
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    other = replace(OPTIONS, judge="phrases")
    (asked,) = patchc.evaluate([base], **sets, options=other).models
    (judged,) = patchc.evaluate(**sets, generations=[out], out=again, options=other).models
    assert judged.outcomes == asked.outcomes


def test_a_file_of_other_requests_is_refused(
    base: Path, sets: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    write_data(sets["harmless"], [{"prompt": "a tea"}])
    with pytest.raises(EvaluateError, match="results of other"):
        patchc.evaluate([base], **sets, out=out, options=OPTIONS)


def test_a_file_of_another_chat_template_is_refused(sets: dict[str, Path], tmp_path: Path) -> None:
    model, out = write_base(tmp_path / "model"), tmp_path / "out.jsonl"
    patchc.evaluate([model], **sets, out=out, options=OPTIONS)
    template = model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<end>", "<end> <end>"))
    with pytest.raises(EvaluateError, match="another chat template"):
        patchc.evaluate([model], **sets, out=out, options=OPTIONS)


@pytest.mark.parametrize("line", [b"3", b"{}", b'{"hit": 1}', b"\xff", b"[" * 99_999])
def test_a_damaged_line_of_a_results_file_is_named(
    base: Path, sets: dict[str, Path], tmp_path: Path, line: bytes
) -> None:
    out = tmp_path / "out.jsonl"
    patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    damaged = out.read_bytes() + line + b"\nnever whole"
    out.write_bytes(damaged)
    with pytest.raises(EvaluateError, match=r"out\.jsonl:17: not a line of evaluation results"):
        patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    assert out.read_bytes() == damaged


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b'{"prompt": "mine"}\n',
        b'{"model": "mine"}',
        b'{"kind": "mine"}\n',
        b"\xff\xfe\n",
        b'{"model": "a"}\n',
        b"[1]\n",
        b"\n",
    ],
)
def test_a_file_of_ones_own_is_not_touched(
    base: Path, sets: dict[str, Path], tmp_path: Path, content: bytes
) -> None:
    out = tmp_path / "notes"
    out.write_bytes(content)
    with pytest.raises(EvaluateError, match="not a line of evaluation results"):
        patchc.evaluate([base], **sets, out=out, options=OPTIONS)
    assert out.read_bytes() == content
