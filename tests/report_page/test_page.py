"""What the page shows: every number of its inputs, exact, and tables beside the pictures."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from page_reader import Cell, ReadPage
from report_inputs import CHANGES, plain, write_world

import patchc
from patchc.landscapes.findings import read_landscape
from patchc.report_page.labels import RATE_LABELS

PARTS = (
    "patch", "origin", "places", "objectives", "fit", "landscape", "turns", "replies", "unknown",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    return write_world(tmp_path_factory.mktemp("world"), plain())


def page_of(tmp_path: Path, patch: Path, results: list[Path], **more: Any) -> ReadPage:
    report = patchc.report(patch, results, out=tmp_path / "page.html", **more)
    text = report.out.read_text()
    assert report.size == len(text.encode())
    return ReadPage(text)


@pytest.fixture(scope="module")
def page(world: tuple[Path, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> ReadPage:
    patch, results = world
    return page_of(tmp_path_factory.mktemp("page"), patch, [*results.values()])


def numbers(rate: dict[str, Any] | None) -> list[float]:
    names = ("value", "low", "high", "hits", "total")
    return [rate[name] for name in names] if rate else []


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_facts_of_the_patch(page: ReadPage, world: tuple[Path, dict[str, Path]]) -> None:
    found = patchc.inspect(world[0])
    for text in (found.root, found.base_digest, found.result_digest, found.annotation.name):
        assert text
        assert text in page.text
    assert all(line in page.text for line in found.annotation.note.splitlines())
    assert "This page checks no signature." in page.text
    assert "The file holds no signature." in page.text
    (code,) = (one for one in page.tables if one.caption.startswith("Code:"))
    assert [row[0].text for row in code.rows] == [one.name for one in found.code.files]


def test_the_map_of_changes(page: ReadPage, world: tuple[Path, dict[str, Path]]) -> None:
    table = page.table("Share of entries that change, by layer and module")
    for tensor in patchc.inspect(world[0]).tensors:
        layer, _, module = tensor.name.removeprefix("model.layers.").partition(".")
        if module:
            cell = table.row(f"layer {layer}")[module.removesuffix(".weight")]
            assert cell.numbers == [tensor.changed / tensor.words]
            assert cell.text == f"{100 * tensor.density:.2f} %"
    empty = [cell for row in table.rows for cell in row[1:] if not cell.numbers]
    assert len(empty) == 1, "a module that only one layer has"


@pytest.mark.parametrize("source", ["evaluation", "turns", "fix"])
def test_the_rates(page: ReadPage, world: tuple[Path, dict[str, Path]], source: str) -> None:
    given = content(world[1][source])
    sides = given["models"][:2] if "models" in given else [*given["test"].values()][:2]
    base, patched = sides
    tables = [one for one in page.tables if one.caption.startswith("Rates of base and patched")]
    order = ["fix", "evaluation", "turns"]
    table = tables[order.index(source)]
    for name, called in RATE_LABELS.items():
        row = table.row(called)
        assert row["base"].numbers == numbers(base[name])
        assert row["patched"].numbers == numbers(patched[name])
        change = CHANGES.get(name)
        wanted = [change[one] for one in ("difference", "low", "high")] if change else []
        assert row["patched − base, points"].numbers == wanted
        assert row["p"].numbers == ([change["p_value"]] if change else [])
    perplexity = table.row("perplexity of the reference text")
    assert perplexity["base"].numbers == [base["perplexity"]]
    assert perplexity["patched"].numbers == [patched["perplexity"]]
    for set_name in ("harmful", "harmless"):
        for kind, rate in patched["kinds"][set_name].items():
            rows = [t.row(kind) for t in page.tables if any(r[0].text == kind for r in t.rows)]
            assert any(row["patched"].numbers == numbers(rate) for row in rows)


def test_the_fit(page: ReadPage, world: tuple[Path, dict[str, Path]]) -> None:
    given = content(world[1]["fix"])
    table = page.table("Points measured on the development requests")
    assert [row[0].text for row in table.rows] == ["base", "step 0", "step 10, chosen"]
    for point in given["development"]["points"]:
        row = table.row(f"step {point['step']}{', chosen' if point['chosen'] else ''}")
        assert row["margin agrees"].numbers == [point["agreement"]]
        assert row["against it"].text == ", ".join(point["against"])
        for name, called in RATE_LABELS.items():
            assert row[called].numbers == numbers(point["figures"][name])
    assert all(sentence in page.text for sentence in given["verdict"] + given["warnings"])
    losses = page.table("Losses by step")
    assert [[cell.numbers for cell in row] for row in losses.rows] == [
        [[0.0], [], [0.5]],
        [[1.0], [0.71875], []],
        [[2.0], [0.4375], [0.25]],
    ]
    traced = page.table("Points measured by generation")
    assert traced.row("step 2")["harmful requests not refused"].numbers[3:] == [1, 20]
    assert traced.row("step 2")["margin agrees"].numbers == [0.8125]


def test_the_landscape(page: ReadPage, world: tuple[Path, dict[str, Path]]) -> None:
    found = read_landscape(world[1]["landscape"])
    assert {curve.subject for curve in found.curves} == {"base", "patched", "line"}
    widths = page.table("VISAGE and half-widths")
    for curve in found.curves:
        tables = [one for one in page.tables if one.caption == "Replies to harmful requests"]
        rows = [row for one in tables for row in one.rows]
        for point in curve.points:
            rate = point.refused
            wanted = [rate.value, rate.low, rate.high, rate.hits, rate.total]
            assert any(
                row[0].numbers == [point.alpha] and wanted in [cell.numbers for cell in row]
                for row in rows
            )
        if curve.subject == "line":
            continue
        row = widths.row(f"{curve.subject}, direction {curve.direction}")
        assert row["VISAGE"].numbers == [curve.visage]
        assert row["VISAGE by phrases"].numbers == [curve.visage_by_phrases]
        width = curve.half_widths["harmful"]
        assert width
        assert row["half-width: harmful refused"].numbers == [width.left, width.right]
    (plane,) = found.planes
    (table,) = (one for one in page.tables if one.caption.startswith("Mean margin of refusal of h")
                and "harmful" in one.caption)  # fmt: skip
    assert [[c.numbers for c in row[1:]] for row in table.rows] == [
        [[value] for value in row] for row in plane.harmful
    ]


def test_the_turns(page: ReadPage, world: tuple[Path, dict[str, Path]]) -> None:
    given = content(world[1]["turns"])["turns"]
    table = page.table("Harmful requests not refused, by category, after each turn")
    for row, rates in zip(table.rows, given["harmful"], strict=True):
        cells = dict(zip((one.text for one in table.columns), row, strict=True))
        assert all(cells[name].numbers == numbers(rate) for name, rate in rates.items())
    (forgetting,) = (one for one in page.tables if one.caption.startswith("Forgetting"))
    for name, value in given["forgetting"].items():
        assert forgetting.row(name)["forgetting"].numbers == [value]


def test_the_replies_that_changed(page: ReadPage, world: tuple[Path, dict[str, Path]]) -> None:
    table = page.table("What replies count as, before and after")
    shown = {tuple(c.text for c in row[:3]): row[3].numbers[0] for row in table.rows}
    assert shown["harmful", "answered", "refused"] == 2
    assert shown["harmless", "refused", "answered"] == 1
    assert sum(shown.values()) == 15
    lines = [json.loads(line) for line in world[1]["replies"].read_text().splitlines()[1:]]
    for before, after in pairwise(lines):
        if before["request"] == after["request"] and before["set"] == after["set"]:
            is_shown = before["verdict"] != after["verdict"]
            for text in (before["prompt"], before["reply"], after["reply"]):
                assert (text in page.text) == is_shown


def test_without_replies_no_request_and_no_reply_is_in_it(
    world: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    patch, results = world
    page = page_of(tmp_path, patch, [*results.values()], replies=False)
    for line in results["replies"].read_text().splitlines()[1:]:
        given = json.loads(line)
        assert given["prompt"] not in page.text
        assert given["reply"] not in page.text
    assert "Requests and replies are left out" in page.text
    assert page.table("What replies count as, before and after").rows


def test_every_drawn_number_is_in_a_table(page: ReadPage) -> None:
    in_tables = {
        number for one in page.tables for row in one.rows for cell in row for number in cell.numbers
    }
    heads = {float(one.text) for t in page.tables for one in t.columns if _is_number(one)}
    assert len(set(page.drawn)) > 40
    assert set(page.drawn) - in_tables - heads == set()


def _is_number(cell: Cell) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", cell.text) is not None


def test_it_is_built_for_every_reader(page: ReadPage) -> None:
    assert page.find("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [value for _, given in page.elements for name, value in given if name == "id"]
    assert len(ids) == len(set(ids))
    for _, given in page.elements:
        for name, value in given:
            if name == "aria-labelledby":
                assert set((value or "").split()) <= set(ids)
    assert {one["href"][1:] for one in page.find("a")} <= set(ids)
    assert all(one.get("scope") in ("col", "row") for one in page.find("th"))
    assert all(one.caption for one in page.tables)
    assert all(one["role"] == "img" for one in page.find("svg"))
    assert len(page.find("figure")) == len(page.find("svg")) > 10
    groups = [one for one in page.find("div") if one.get("role") == "group"]
    assert len(groups) == len(page.tables)
    assert all(one["tabindex"] == "0" and one["aria-labelledby"] for one in groups)
    assert "prefers-color-scheme" in page.style
    assert "@media print" in page.style


def test_the_same_files_give_the_same_page(
    world: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    patch, results = world
    pages = [tmp_path / name for name in ("a.html", "b.html")]
    for out in pages:
        patchc.report(patch, [*results.values()], out=out)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_patch_alone_says_what_is_not_known(
    world: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    report = patchc.report(world[0], out=tmp_path / "page.html")
    page = ReadPage(report.out.read_text())
    assert report.shown == ("patch", "origin", "places", "unknown")
    assert report.missing == ("objectives", "fit", "landscape", "turns", "replies")
    assert "No results were given" in page.text
    assert len(page.table("Not given").rows) == 5
    assert report.title == f"Report on {patchc.inspect(world[0]).annotation.name}"


def test_the_command(world: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    patch, results = world
    out = tmp_path / "page.html"
    code, told, _ = run("report", patch, *results.values(), "-o", out, "--title", "A title")
    assert code == 0
    assert f"wrote {out}" in told
    assert "<h1>A title</h1>" in out.read_text()
    code, _, problem = run("report", patch, "-o", out)
    assert code == 11
    assert "exists" in problem
    other = tmp_path / "other.html"
    code, told, _ = run(
        "report", patch, results["evaluation"], "-o", other, "--no-replies", "--json"
    )
    assert code == 0
    found = json.loads(told)
    assert found["out"] == str(other)
    assert found["size"] == other.stat().st_size
    assert set(found["shown"]) | set(found["missing"]) == set(PARTS)
    assert run("report", patch, "-o", tmp_path)[0] == 11
    assert run("report", patch, "-o", patch)[0] == 11
