"""Files with more than anybody would read: the page shows some, and says that there is more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from page_reader import ReadPage
from report_inputs import (
    evaluation,
    fix_report,
    landscape,
    plain,
    rate,
    replies,
    trace,
    turns,
    write_lines,
    write_patch,
)

import patchc

MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def patch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patch(tmp_path_factory.mktemp("patch"), plain())


def read(patch: Path, results: Path) -> ReadPage:
    report = patchc.report(patch, results, out=results.with_suffix(".html"))
    assert report.size < MOST_BYTES
    return ReadPage(report.out.read_text())


def test_kinds_and_sets(patch: Path, tmp_path: Path) -> None:
    content = evaluation(patchc.inspect(patch), plain())
    kinds = {f"kind {number}": rate(1, 5) for number in range(5000)}
    content["models"][1]["kinds"]["harmful"] = kinds
    content["requests"] = {f"set {number}": number for number in range(9000)}
    content["data"] = {f"set {number}": 64 * "a" for number in range(9000)}
    (tmp_path / "report.json").write_text(json.dumps(content))
    page = read(patch, tmp_path / "report.json")
    (table,) = (one for one in page.tables if "(the first 60 of 5,002)" in one.caption)
    assert len(table.rows) == 60


def test_turns_and_categories(patch: Path, tmp_path: Path) -> None:
    content = turns(patchc.inspect(patch), plain())
    chain = content["turns"]
    names = [f"category {number}" for number in range(200)]
    chain |= {
        "patches": chain["patches"] + 100 * ["more"],
        "roots": chain["roots"] + 100 * [64 * "c"],
        "categories": names,
        "harmful": 103 * [{name: rate(1, 5) for name in names}],
        "over_refusal": 103 * [rate(1, 5)],
        "utility": 103 * [None],
        "forgetting": {},
    }
    (tmp_path / "turns.json").write_text(json.dumps(content))
    assert "Left out: 63 later turns, 160 categories." in (
        read(patch, tmp_path / "turns.json").text
    )


def test_steps_of_a_fit_and_its_sentences(patch: Path, tmp_path: Path) -> None:
    found = patchc.inspect(patch)
    lines = trace(found, plain())
    steps = [lines[3] | {"step": number, "loss": number / 7} for number in range(3000)]
    write_lines(tmp_path / "trace.jsonl", [*lines[:2], *steps, *lines[5:]])
    page = read(patch, tmp_path / "trace.jsonl")
    table = page.table("Losses by step (375 of 3,000 steps)")
    assert len(table.rows) == 375
    assert table.rows[-1][0].numbers == [2999]
    content = fix_report(found, plain()) | {"verdict": 9000 * ["A sentence."]}
    (tmp_path / "report.json").write_text(json.dumps(content))
    assert read(patch, tmp_path / "report.json").text.count("A sentence.") == 50


def test_replies_that_changed(patch: Path, tmp_path: Path) -> None:
    lines = replies(patchc.inspect(patch), plain())
    changed = [line for line in lines[1:] if line["set"] == "harmful"][2:4]
    more = [line | {"request": f"{number:032x}"} for number in range(100, 5100) for line in changed]
    write_lines(tmp_path / "replies.jsonl", [*lines, *more])
    page = read(patch, tmp_path / "replies.jsonl")
    assert "More such requests, not shown: 4,981." in page.text
    rows = page.table("What replies count as, before and after").rows
    assert [5001] in [row[3].numbers for row in rows]


def test_planes(patch: Path, tmp_path: Path) -> None:
    lines = landscape(patchc.inspect(patch), plain())
    margins = {"harmful": [1.0, 2.0, 3.0, 4.0], "harmless": [1.0, 2.0]}
    places = [number / 64 for number in range(-25, 26)]
    wide = [
        {"at": {"patch": 0.0, "1": x, "2": y}, "system": True, "margins": margins}
        for x in places
        for y in places
    ]
    write_lines(tmp_path / "landscape.jsonl", [*lines, *wide])
    assert "Planes that are not shown: 1." in read(patch, tmp_path / "landscape.jsonl").text
