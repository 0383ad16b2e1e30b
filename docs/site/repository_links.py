"""Links as a code host follows them, turned into links of the site.

A page of the repository links to files by their place in the repository. The site has the same
pages, some at another place, and not the rest of the repository.
"""

from __future__ import annotations

import posixpath
import re
from itertools import pairwise
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

ELSEWHERE = {
    "formats/SPEC.md": "reference/format.md",
    "benchmarks/README.md": "explanation/benchmarks.md",
    "benchmarks/size.md": "explanation/size-tables.md",
    "benchmarks/linear.svg": "explanation/linear.svg",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "README.md": "index.md",
}
"""Files outside ``docs`` that the site has, and where."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s#]*)(#[^()\s]*)?\)")
_BLOCK = re.compile(r"^( *)(`{3,})[^`\n]*\n.*?^\1\2$", re.MULTILINE | re.DOTALL)
_SCHEME = re.compile(r"[a-z]+:")


def in_site(markdown: str, source: str, page: str) -> str:
    """Rewrite the links of a page; one to a file that the site does not have becomes plain text.

    Args:
        markdown: the page.
        source: its place in the repository.
        page: its place in the site.
    """

    def link(found: re.Match[str]) -> str:
        image, text, target, anchor = found.groups(default="")
        if not target or _SCHEME.match(target):
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if place in ELSEWHERE:
            there = ELSEWHERE[place]
        elif place.startswith("docs/"):
            there = place.removeprefix("docs/")
        elif (REPOSITORY / place).exists():
            return text
        else:
            return found[0]
        return (
            f"{image}[{text}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{anchor})"
        )

    parts = [markdown[start:end] for start, end in _spans(markdown)]
    return "".join(part if at % 2 else _LINK.sub(link, part) for at, part in enumerate(parts))


def links_of(markdown: str) -> list[tuple[str, str]]:
    """The target and anchor of every link that is not on the web."""
    links = [
        (link[3], (link[4] or "").removeprefix("#"))
        for link in _LINK.finditer(without_blocks(markdown))
    ]
    return [(target, anchor) for target, anchor in links if not _SCHEME.match(target)]


def without_blocks(markdown: str) -> str:
    """Leave out fenced blocks."""
    return _BLOCK.sub("", markdown)


def _spans(markdown: str) -> list[tuple[int, int]]:
    """Text and fenced blocks in turn, each from where to where."""
    blocks = [found.span() for found in _BLOCK.finditer(markdown)]
    edges = [0, *(edge for block in blocks for edge in block), len(markdown)]
    return list(pairwise(edges))
