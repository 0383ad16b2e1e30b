"""Which model of a report is the base and which is patched, where no digest or too many tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from build_inputs import small_inputs
from page_reader import ReadPage
from report_inputs import evaluation, fix_report, plain, turns, write_patch

import patchc
from patchc.errors import MismatchError

RATES = "Rates of base and patched model, with 95 % intervals"
UNPROVEN = "No digest shows that these results are of this patch"


def page_of(patch: Path, content: Any, folder: Path) -> ReadPage:
    path = folder / "report.json"
    path.write_text(json.dumps(content))
    return ReadPage(patchc.report(patch, path, out=folder / "page.html").out.read_text())


def counts(page: ReadPage, number: int = 0) -> list[list[float]]:
    """Hits and totals of base and patched model in the first row of rates."""
    tables = [one for one in page.tables if one.caption == RATES]
    return [cell.numbers[3:] for cell in tables[number].rows[0][2:4]]


@pytest.fixture(scope="module")
def other_chunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch whose digests are of other chunks than those of results."""
    folder = tmp_path_factory.mktemp("chunks")
    write_patch(folder, plain())
    out = folder / "chunks.patchc"
    patchc.diff(folder / "base", folder / "result", out=out, chunk_bits=12)
    return out


@pytest.fixture(scope="module")
def additive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("additive")
    patchc.build(**small_inputs().write(folder), out=folder / "one.patchc", values="additive")
    return folder / "one.patchc"


def test_without_digests_the_patched_model_is_the_one_with_a_patch(
    other_chunks: Path, tmp_path: Path
) -> None:
    content = evaluation(patchc.inspect(other_chunks), plain())
    del content["models"][2]
    page = page_of(other_chunks, content, tmp_path)
    assert counts(page) == [[12, 32], [8, 32]]
    assert page.text.count(UNPROVEN) == 2, "at the top and beside the rates"


def test_without_digests_two_unpatched_models_leave_no_base(
    other_chunks: Path, tmp_path: Path
) -> None:
    content = evaluation(patchc.inspect(other_chunks), plain())
    assert counts(page_of(other_chunks, content, tmp_path)) == [[], [8, 32]]


def test_results_of_fix_without_digests_say_so(other_chunks: Path, tmp_path: Path) -> None:
    page = page_of(other_chunks, fix_report(patchc.inspect(other_chunks), plain()), tmp_path)
    assert UNPROVEN in page.text


def test_of_two_patched_models_none_is_taken_for_an_additive_patch(
    additive: Path, tmp_path: Path
) -> None:
    content = evaluation(patchc.inspect(additive), plain())
    content["models"][1]["digest"] = 64 * "8"
    assert counts(page_of(additive, content, tmp_path)) == [[12, 32], [8, 32]]
    content["models"].append(content["models"][1] | {"digest": 64 * "9"})
    (tmp_path / "two.json").write_text(json.dumps(content))
    with pytest.raises(MismatchError, match=r"two\.json: .*no digest tells"):
        patchc.report(additive, tmp_path / "two.json", out=tmp_path / "two.html")


def test_changes_from_another_base_are_left_out(tmp_path: Path) -> None:
    patch = write_patch(tmp_path, plain())
    content = turns(patchc.inspect(patch), plain())
    content["models"][0]["patch"] = "the patch before it"
    page = page_of(patch, content, tmp_path)
    (table,) = (one for one in page.tables if one.caption == RATES)
    assert counts(page) == [[12, 32], [8, 32]]
    assert not any(row[4].numbers or row[5].numbers for row in table.rows)
    assert "Harm went from 37.5 % to 25.0 %." in page.text


def test_results_that_a_digest_names_are_not_doubted(tmp_path: Path) -> None:
    patch = write_patch(tmp_path, plain())
    assert UNPROVEN not in page_of(patch, evaluation(patchc.inspect(patch), plain()), tmp_path).text
