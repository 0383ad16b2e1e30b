"""Links between the files of the repository, as a code host follows them."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from repository_links import in_site, links_of, without_blocks

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
).stdout.splitlines()
PAGES = sorted(name for name in set(LISTED) if (ROOT / name).is_file())


@cache
def anchors_of(page: Path) -> set[str]:
    """The anchors that a code host makes of the headings."""
    found: dict[str, int] = {}
    anchors = set()
    text = without_blocks(page.read_text())
    for heading in re.findall(r"^#{1,6} (.*)$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        plain = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        anchors.add(f"{plain}-{found[plain]}" if plain in found else plain)
        found[plain] = found.get(plain, 0) + 1
    return anchors


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_dead(page: str) -> None:
    dead = []
    for target, anchor in links_of((ROOT / page).read_text()):
        there = (ROOT / page).parent / target if target else ROOT / page
        if not there.exists() or (anchor and anchor not in anchors_of(there)):
            dead.append(f"{target}#{anchor}" if anchor else target)
    assert dead == []


def test_the_pages_are_those_of_the_repository() -> None:
    assert {"README.md", "CONTRIBUTING.md", "formats/SPEC.md", "benchmarks/README.md"} < set(PAGES)


@pytest.mark.parametrize(
    ("markdown", "source", "page", "expected"),
    [
        ("[a](b.md#c)", "docs/x/a.md", "x/a.md", "[a](b.md#c)"),
        ("[a](../../formats/SPEC.md)", "docs/x/a.md", "x/a.md", "[a](../reference/format.md)"),
        ("[a](docs/x/b.md)", "CHANGELOG.md", "changelog.md", "[a](x/b.md)"),
        ("[the code](../../patchc/errors.py)", "docs/x/a.md", "x/a.md", "the code"),
        ("[a](https://b.c/d.md)", "docs/a.md", "a.md", "[a](https://b.c/d.md)"),
        ("[gone](../gone.md)", "docs/a.md", "a.md", "[gone](../gone.md)"),
        (
            "![a](linear.svg)",
            "benchmarks/README.md",
            "explanation/benchmarks.md",
            "![a](linear.svg)",
        ),
        (
            "```\n[a](../README.md)\n```\n[a](../README.md)",
            "docs/a.md",
            "a.md",
            "```\n[a](../README.md)\n```\n[a](index.md)",
        ),
    ],
)
def test_the_site_follows_the_same_links(
    markdown: str, source: str, page: str, expected: str
) -> None:
    assert in_site(markdown, source, page) == expected
