"""Results are known by what they hold, and are refused where they are of others or damaged."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from build_inputs import small_inputs
from page_reader import ReadPage
from report_inputs import CHANGES, evaluation, plain, rate, write_lines, write_world

import patchc
from patchc.errors import EvaluateError, MismatchError

KINDS = ("evaluation", "turns", "fix", "replies", "trace", "landscape")
BASE_ALONE = ("trace",)
"""Results that name their base and no patch."""

World = tuple[Path, dict[str, Path]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"), plain())


@pytest.fixture(scope="module")
def others(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A patch of the same base, and one of another base."""
    folder = tmp_path_factory.mktemp("others")
    for name in ("base", "result"):
        copy = shutil.copytree(world[0].parent / name, folder / name)
        (weights,) = copy.glob("*.safetensors")
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    patchc.diff(world[0].parent / "base", folder / "result", out=folder / "same base.patchc")
    patchc.diff(folder / "base", folder / "result", out=folder / "other base.patchc")
    return [folder / "same base.patchc", folder / "other base.patchc"]


def refused(patch: Path, results: Path, out: Path, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        patchc.report(patch, results, out=out)
    assert len(str(caught.value)) < 1000
    assert not out.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_results_of_another_patch_are_refused(
    world: World, others: list[Path], tmp_path: Path, kind: str
) -> None:
    path = world[1][kind]
    message = f"{path.name}: .*(another|other patches|no reply)"
    for patch in others[1:] if kind in BASE_ALONE else others:
        refused(patch, path, tmp_path / "page.html", MismatchError, message)


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_of_a_file_does_not_matter(world: World, tmp_path: Path, kind: str) -> None:
    moved = tmp_path / "report.html"
    moved.write_bytes(world[1][kind].read_bytes())
    page = patchc.report(world[0], moved, out=tmp_path / "page.html")
    assert len(page.shown) > len(("patch", "origin", "places", "unknown"))


def test_a_landscape_with_another_patch_of_the_base_is_refused(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "landscape.jsonl"
    root = patchc.inspect(world[0]).root
    path.write_text(world[1]["landscape"].read_text().replace(root, 64 * "7"))
    refused(world[0], path, tmp_path / "page.html", MismatchError, "root is 7777")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("{}", "it is no report"),
        ("[1, 2]", "it is no report"),
        ("hello", "Expecting value"),
        ('{"judge": "x"}', "models is missing"),
        ('{"judge": "x", "development": {}}', "base_digest is missing"),
        ('{"judge": "x", "judge": "y"}', "given twice"),
        ('{"judge": NaN}', "NaN is not JSON"),
        (2000 * "[", "nested"),
        ('{"kind": "sweep", "inputs": {}}\n{}\n', "a file of kind 'sweep'"),
        ('{"kind": ["<b>"], "inputs": {}}\n', "."),
        ('{"kind": "evaluation", "inputs": {}}\n', "no reply of a model with this patch"),
    ],
)
def test_other_files_are_refused(world: World, tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "given"
    path.write_text(text)
    message = f"{re.escape(str(path))}|given: .*{why}"
    with pytest.raises((EvaluateError, MismatchError), match=why) as caught:
        patchc.report(world[0], path, out=tmp_path / "page.html")
    assert re.search(message, str(caught.value))


def test_files_that_cannot_be_read_are_refused(world: World, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    refused(world[0], tmp_path / "gone", out, FileNotFoundError, "gone: cannot read")
    (tmp_path / "folder").mkdir()
    refused(world[0], tmp_path / "folder", out, EvaluateError, "a folder")
    (tmp_path / "binary").write_bytes(b"\x80\0")
    refused(world[0], tmp_path / "binary", out, EvaluateError, "binary")


@pytest.mark.parametrize("kind", ["replies", "trace", "landscape"])
@pytest.mark.parametrize("line", ["{", "[]", '{"a": 1}', "\\ud800", '{"set": "harmful"}'])
def test_a_damaged_line_is_named(world: World, tmp_path: Path, kind: str, line: str) -> None:
    path = tmp_path / "lines.jsonl"
    lines = world[1][kind].read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], line + "\n", *lines[3:]]))
    refused(world[0], path, tmp_path / "page.html", EvaluateError, rf"{re.escape(str(path))}:4: ")


@pytest.mark.parametrize("kind", ["replies", "trace", "landscape"])
def test_a_line_that_was_cut_off_is_left_out(world: World, tmp_path: Path, kind: str) -> None:
    cut = tmp_path / world[1][kind].name
    cut.write_text(world[1][kind].read_text() + '{"step": 3, "lo')
    pages = [tmp_path / "whole.html", tmp_path / "cut.html"]
    for path, out in zip((world[1][kind], cut), pages, strict=True):
        patchc.report(world[0], path, out=out)
    assert pages[0].read_bytes() == pages[1].read_bytes()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"harmful": {"hits": 3, "total": 2}}, "3 of 2 is no rate"),
        ({"harmful": {"hits": True, "total": 2}}, "whole number"),
        ({"harmful": {"hits": "<b>", "total": 2}}, "whole number"),
        ({"perplexity": "1e9"}, "a figure is no number"),
        ({"digest": "<b>"}, "a digest is malformed"),
        ({"kinds": [1]}, "no object"),
        ({"kinds": {"harmful": {5000 * "k": rate(1, 2)}}}, "4,096 characters"),
    ],
)
def test_a_report_with_other_values_is_refused(
    world: World, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    content = evaluation(patchc.inspect(world[0]), plain())
    content["models"][1] |= change
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    refused(world[0], path, tmp_path / "page.html", EvaluateError, why)


def test_a_change_beyond_one_is_refused(world: World, tmp_path: Path) -> None:
    content = evaluation(patchc.inspect(world[0]), plain())
    changes = {"harmful": CHANGES["harmful"] | {"difference": -12.5}}
    content["changes"] = {content["models"][1]["model"]: changes}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    refused(world[0], path, tmp_path / "page.html", EvaluateError, "not between -1 and 1")


def test_a_forged_interval_is_computed_again(world: World, tmp_path: Path) -> None:
    content = evaluation(patchc.inspect(world[0]), plain())
    content["models"][1]["harmful"] |= {"value": 0.0, "low": 0.0, "high": 0.001}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    patchc.report(world[0], path, out=tmp_path / "page.html")
    page = ReadPage((tmp_path / "page.html").read_text())
    row = page.table("Rates of base and patched model, with 95 % intervals").rows[0]
    assert row[3].numbers == [rate(8, 32)[name] for name in ("value", "low", "high")] + [8, 32]


def test_replies_of_one_model_alone_are_counted_apart(world: World, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in world[1]["replies"].read_text().splitlines()]
    write_lines(tmp_path / "replies.jsonl", [*lines[:2], *lines[3:]])
    patchc.report(world[0], tmp_path / "replies.jsonl", out=tmp_path / "page.html")
    assert "Replies of one model alone, not compared: 1." in (
        ReadPage((tmp_path / "page.html").read_text()).text
    )


def test_results_of_an_additive_patch_go_by_its_base(tmp_path: Path) -> None:
    patch = tmp_path / "additive.patchc"
    patchc.build(**small_inputs().write(tmp_path), out=patch, values="additive")
    found = patchc.inspect(patch)
    content = evaluation(found, plain())
    content["models"][1]["digest"] = 64 * "8"
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    page = patchc.report(patch, path, out=tmp_path / "page.html")
    assert "objectives" in page.shown
    content["models"][0]["digest"] = 64 * "9"
    path.write_text(json.dumps(content))
    refused(patch, path, tmp_path / "other.html", MismatchError, "another patch or model")


def test_results_in_the_annotation_are_shown_as_its_writers(world: World, tmp_path: Path) -> None:
    noted = tmp_path / "noted.patchc"
    patchc.annotate(world[0], results=world[1]["evaluation"], out=noted)
    patchc.report(noted, out=tmp_path / "page.html")
    page = ReadPage((tmp_path / "page.html").read_text())
    assert "From the patch's own annotation, which nothing vouches for" in page.text
    row = page.table("Rates of base and patched model, with 95 % intervals").rows[0]
    assert row[2].numbers[3:] == [12, 32]
