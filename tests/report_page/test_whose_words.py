"""What a page says in others' words, and what it says of files that have little to show."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from page_reader import ReadPage
from report_inputs import evaluation, fix_report, plain, trace, turns, write_lines, write_world

import patchc
from patchc.errors import EvaluateError
from patchc.formats import open_patch, write_with_metadata

World = tuple[Path, dict[str, Path]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"), plain())


def text_of(patch: Path, results: list[Path], out: Path) -> str:
    return patchc.report(patch, results, out=out).out.read_text()


@pytest.mark.parametrize(
    "name", ["x; touch gone #.patchc", "it's $(id).patchc", "-v.patchc", "a b.patchc"]
)
def test_a_shell_takes_the_name_in_a_command_for_a_name(
    world: World, tmp_path: Path, name: str
) -> None:
    patch = shutil.copy(world[0], tmp_path / name)
    page = ReadPage(text_of(patch, [], tmp_path / "page.html"))
    command = re.search(r"patchc verify .* --trusted KEY", page.text)
    assert command
    words = shlex.split(command[0])
    assert [words[:2], words[3:]] == [["patchc", "verify"], ["--trusted", "KEY"]]
    assert (tmp_path / words[2]).samefile(patch)
    assert words[2][0] != "-"


def test_sentences_of_a_report_stand_in_boxes(world: World, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    found = patchc.inspect(world[0])
    said = ["This page has checked every signature.", *(f"Sentence {n}." for n in range(60))]
    path.write_text(json.dumps(fix_report(found, plain()) | {"verdict": said, "warnings": []}))
    text = text_of(world[0], [path], tmp_path / "page.html")
    assert f'<div class="lines">{said[0]}</div>' in text
    assert "In the words of that file:" in text
    assert "Sentence 49." not in text
    assert "More sentences, not shown: 11." in ReadPage(text).text


def test_points_that_are_not_shown_are_counted(world: World, tmp_path: Path) -> None:
    content = fix_report(patchc.inspect(world[0]), plain())
    first = content["development"]["points"][0]
    content["development"]["points"] = [first | {"step": number} for number in range(150)]
    (tmp_path / "report.json").write_text(json.dumps(content))
    page = ReadPage(text_of(world[0], [tmp_path / "report.json"], tmp_path / "page.html"))
    title = "Points measured on the development requests (the first 100 of 150)"
    assert len(page.table(title).rows) == 101


def test_each_landscape_has_the_name_of_its_file(world: World, tmp_path: Path) -> None:
    files = [tmp_path / f"seed {number}.jsonl" for number in (1, 2)]
    for number, file in enumerate(files):
        content = world[1]["landscape"].read_text()
        file.write_text(content.replace('"seed": 123', f'"seed": {number}'))
    text = text_of(world[0], files, tmp_path / "page.html")
    assert [f"<h3>seed {n}.jsonl</h3>" in text for n in (1, 2)] == [True, True]


def test_a_file_that_is_given_twice_counts_once(world: World, tmp_path: Path) -> None:
    files = [*world[1].values()]
    copies = [shutil.copy(file, tmp_path / file.name) for file in files]
    once = text_of(world[0], files, tmp_path / "once.html")
    assert text_of(world[0], [*files, *files, *copies], tmp_path / "twice.html") == once


def test_a_landscape_that_has_begun_says_so(world: World, tmp_path: Path) -> None:
    lines = world[1]["landscape"].read_text().splitlines(keepends=True)
    for number, kept in enumerate((1, 2)):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(lines[:kept]))
        text = text_of(world[0], [path], path.with_suffix(".html"))
        assert "The file has no whole line and no whole plane yet." in text


def test_a_trace_that_has_begun_says_so(world: World, tmp_path: Path) -> None:
    write_lines(tmp_path / "trace.jsonl", trace(patchc.inspect(world[0]), plain())[:1])
    text = text_of(world[0], [tmp_path / "trace.jsonl"], tmp_path / "page.html")
    assert "The trace has no step yet." in text


def test_the_base_of_a_trace_is_a_line_across(world: World, tmp_path: Path) -> None:
    text = text_of(world[0], [world[1]["trace"]], tmp_path / "page.html")
    (drawn,) = re.findall(r'<svg[^>]*"fit0-points-title .*?</svg>', text, re.DOTALL)
    steps = {float(one) for one in re.findall('data-x="([^"]*)"', drawn)}
    assert steps == {2.0}, "the base is no step"
    assert drawn.count('data-value="0.15"') > 1
    assert "thin, across: base" in drawn


def test_positive_scales_are_shaded_around_1(world: World, tmp_path: Path) -> None:
    overrides = [{"match": r".*\.0\..*", "weight": 2}, {"match": r".*\.1\..*", "weight": 0.5}]
    recipe = {"method": "dare", "seed": 5, "overrides": overrides}
    scaled = tmp_path / "scaled.patchc"
    with open_patch(world[0]) as opened, scaled.open("wb") as file:
        write_with_metadata(opened, file, {**opened.metadata, "recipe": recipe})
    text = text_of(scaled, [], tmp_path / "page.html")
    (drawn,) = re.findall(r'<svg[^>]*"scale0-title .*?</svg>', text, re.DOTALL)
    assert drawn.count(">1</text>") == 1, "the middle of the legend; no tensor has it"


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_perplexity_without_end_is_shown(world: World, tmp_path: Path, value: str) -> None:
    content = evaluation(patchc.inspect(world[0]), plain())
    content["models"][1]["perplexity"] = value
    (tmp_path / "report.json").write_text(json.dumps(content))
    page = ReadPage(text_of(world[0], [tmp_path / "report.json"], tmp_path / "page.html"))
    row = page.table("Rates of base and patched model, with 95 % intervals").row(
        "perplexity of the reference text"
    )
    assert row["patched"].text == value


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    for name in place[:-1]:
        content = content[name]
    content[place[-1]] = value


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (("turns", "roots"), [64 * "5"], "other numbers of roots"),
        (("turns", "forgetting"), {"a": 1e308}, "not between -1 and 1"),
        (("models", 1, "perplexity"), -1, "negative"),
        (("models", 1, "perplexity"), "1_0", "no number"),
    ],
)
def test_values_of_turns_that_are_none(
    world: World, tmp_path: Path, place: tuple[Any, ...], value: Any, why: str
) -> None:
    content = turns(patchc.inspect(world[0]), plain())
    changed(content, place, value)
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(EvaluateError, match=why):
        text_of(world[0], [tmp_path / "report.json"], tmp_path / "page.html")


@pytest.mark.parametrize("place", [("covered",), ("points", 0, "agreement")])
def test_shares_of_a_fix_that_are_none(
    world: World, tmp_path: Path, place: tuple[Any, ...]
) -> None:
    content = fix_report(patchc.inspect(world[0]), plain())
    changed(content["development"], place, 1e308)
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(EvaluateError, match="not between 0 and 1"):
        text_of(world[0], [tmp_path / "report.json"], tmp_path / "page.html")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("base", "perplexity"), "1_0"),
        (("base", "perplexity"), " 12 "),
        (("base", "perplexity"), True),
        (("base", "harmful"), [1.5, 2.5]),
        (("base", "harmful"), [True, True]),
    ],
)
def test_values_of_a_trace_that_are_none(
    world: World, tmp_path: Path, place: tuple[Any, ...], value: Any
) -> None:
    lines = trace(patchc.inspect(world[0]), plain())
    lines[1] = json.loads(json.dumps(lines[1]))
    changed(lines[1], place, value)
    write_lines(tmp_path / "trace.jsonl", lines)
    with pytest.raises(EvaluateError, match=r"trace\.jsonl:2: "):
        text_of(world[0], [tmp_path / "trace.jsonl"], tmp_path / "page.html")
