"""What a page is made of: facts, tables, pictures and texts, with every number exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

MOST_PRINTED = 120
"""Cells of a folded table that is printed all the same: a third of a page."""


@dataclass(frozen=True)
class Number:
    """A number as it is shown, and what it is exactly."""

    text: str
    value: float

    @property
    def exact(self) -> str:
        """The shortest text that reads back as the number."""
        return repr(self.value)


@dataclass(frozen=True)
class Code:
    """A text of digits or of a command."""

    text: str


Part = str | Number | Code
Cell = Sequence[Part]
"""What stands in a cell: texts and numbers, one after another; nothing in an empty one."""


@dataclass(frozen=True)
class Text:
    """A paragraph; one of another ``tone`` has a box around it."""

    parts: Cell
    tone: Literal["plain", "note"] = "plain"


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    rows: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: what it shows.
        columns: the heads of all columns, the first one's too.
        rows: for each row, a cell for each column.
        is_folded: whether only its caption is seen until somebody opens it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    is_folded: bool = False

    @property
    def is_long(self) -> bool:
        """Whether it takes so much paper that it is printed only where somebody opened it."""
        return len(self.rows) * len(self.columns) > MOST_PRINTED


@dataclass(frozen=True)
class Figure:
    """A picture, and the table of the numbers that it shows, folded unless it ``is_open``."""

    picture: Markup
    table: Table
    is_open: bool = False


@dataclass(frozen=True)
class Lines:
    """A text in several lines that somebody else wrote, such as a note."""

    text: str


@dataclass(frozen=True)
class Exchange:
    """A request, and the replies of both models to it."""

    prompt: str
    base: str
    patched: str


@dataclass(frozen=True)
class Exchanges:
    """Replies that changed alike; ``rest`` more are not shown."""

    shown: Sequence[Exchange]
    rest: Number


@dataclass(frozen=True)
class Subsection:
    """Blocks under a heading of their own."""

    title: str
    blocks: Sequence[Block]


Block = Text | Facts | Table | Figure | Lines | Exchanges | Subsection


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: its id in the page.
        title: its heading.
        blocks: what it shows.
    """

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page: what it is called, its outcome in a sentence or two, and its sections."""

    title: str
    verdict: Sequence[Text]
    sections: Sequence[Section]
