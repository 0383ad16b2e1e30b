"""The fenced blocks of a Markdown page, and what the comment above one says of it.

A block that runs is ``console`` (commands after ``$ ``, each followed by its output), ``sh``
(commands alone) or ``python``; a ``text`` block right after a ``python`` one is its output. A block
with a ``title="NAME"`` is a file that the page makes. A comment directly above a block,
``<!-- not run: REASON -->``, keeps it from running; ``<!-- figures vary: REASON -->`` lets the
output's numbers differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

RUN = ("console", "sh", "python")
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")
_COMMENT = re.compile(r"^ *<!-- (not run|figures vary): (\S.*) -->$")
_TITLE = re.compile(r'title="([^"]+)"')
_PROMPT = "$ "


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: the first word after the fence.
        title: the name of the file that the block shows.
        text: its lines.
        line: where it begins in the page.
        not_run: why it does not run.
        varies: why its output's numbers may differ.
    """

    language: str
    title: str | None
    text: str
    line: int
    not_run: str | None = None
    varies: str | None = None

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.title and not self.not_run


@dataclass(frozen=True)
class Step:
    """A command of a console block and the output that the page shows."""

    command: str
    output: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    comments: dict[str, str] = {}
    at = 0
    while at < len(lines):
        if comment := _COMMENT.match(lines[at]):
            comments[comment[1]] = comment[2]
        elif fence := _FENCE.match(lines[at]):
            end = _end(lines, at, fence["ticks"])
            inside = [line.removeprefix(fence["indent"]) for line in lines[at + 1 : end]]
            info = fence["info"].strip()
            title = _TITLE.search(info)
            found.append(
                Block(
                    info.split()[0] if info else "",
                    title[1] if title else None,
                    "\n".join(inside) + "\n",
                    at + 1,
                    comments.get("not run"),
                    comments.get("figures vary"),
                )
            )
            comments = {}
            at = end
        elif lines[at].strip():
            comments = {}
        at += 1
    return found


def steps_of(block: Block) -> list[Step]:
    """The commands of a console block; one that ends with a backslash goes on in the next line."""
    steps: list[Step] = []
    command: list[str] = []
    output: list[str] = []
    line = block.line
    for number, text in enumerate(block.text.splitlines(), block.line + 1):
        if command and not output and command[-1].endswith("\\"):
            command.append(text.removeprefix("> "))
        elif text.startswith(_PROMPT):
            if command:
                steps.append(Step("\n".join(command), "\n".join(output), line))
            command, output, line = [text.removeprefix(_PROMPT)], [], number
        elif command:
            output.append(text)
        else:
            raise ValueError(f"line {number}: a console block begins with `$ `, not {text!r}")
    return [*steps, Step("\n".join(command), "\n".join(output), line)] if command else steps


def _end(lines: list[str], start: int, ticks: str) -> int:
    for at in range(start + 1, len(lines)):
        if lines[at].strip() == ticks:
            return at
    raise ValueError(f"line {start + 1}: the block has no end")
