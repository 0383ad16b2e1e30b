"""A stranger's patch and results stay texts: the page has the elements that it has anyway."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from page_reader import Attributes, ReadPage
from report_inputs import HOSTILE, Speaker, hostile, plain, write_world

import patchc
from patchc.escaping import visible

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "a", "header", "h1", "h2", "h3", "h4", "h5",
    "p", "nav", "ol", "li", "main", "section", "footer", "div", "dl", "dt", "dd", "span", "code",
    "table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "details",
    "summary", "svg", "desc", "g", "path", "rect", "circle", "text", "defs", "pattern",
}  # fmt: skip


def page_of(folder: Path, say: Speaker) -> str:
    patch, results = write_world(folder, say)
    patchc.report(patch, [*results.values()], out=folder / "page.html", title=say())
    return (folder / "page.html").read_text()


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(tmp_path_factory.mktemp("hostile"), hostile())


def structure(page: ReadPage) -> list[tuple[str, Attributes]]:
    """Every element and attribute; the numbers of sizes differ with the lengths of names."""
    return [
        (tag, tuple((name, value) for name, value in given if name != "data-value"))
        for tag, given in page.elements
    ]


def test_a_strangers_texts_make_no_element_and_no_attribute(
    hostile_page: str, tmp_path: Path
) -> None:
    found = ReadPage(hostile_page)
    assert structure(found) == structure(ReadPage(page_of(tmp_path, plain())))
    assert sum("alert(1)" in text for text in HOSTILE) > 3
    for text in HOSTILE:
        assert visible(text) in found.text, "it is shown as it is"


def test_the_page_can_do_nothing(hostile_page: str) -> None:
    page = ReadPage(hostile_page)
    names = {tag for tag, _ in page.elements if not tag.startswith("/")}
    assert names <= ALLOWED
    for tag, given in page.elements:
        for name, value in given:
            assert not name.startswith("on"), tag
            assert name not in ("src", "srcset", "style", "action", "formaction", "srcdoc", "xlink")
            if name in ("href", "fill", "stroke"):
                assert "//" not in (value or "")
    assert {one["href"][0] for one in page.find("a")} == {"#"}
    assert all(character.isprintable() or character == "\n" for character in hostile_page)


def test_its_policy_allows_its_own_style_alone(hostile_page: str) -> None:
    page = ReadPage(hostile_page)
    (policy,) = (
        one["content"]
        for one in page.find("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    numbers = iter(range(10_000))
    patch, results = write_world(tmp_path, lambda: f"{next(numbers)}.")
    lines = results["replies"].read_text().splitlines(keepends=True)
    long = lines[3].replace('"reply": "', '"reply": "' + 9000 * "long <b> ")
    lines[3:4] = [long]
    results["replies"].write_text("".join(lines))
    patchc.report(patch, results["replies"], out=tmp_path / "page.html", title=300 * "<title>")
    page = ReadPage((tmp_path / "page.html").read_text())
    assert "characters left out" in page.text
    assert len(page.text) < 40_000
