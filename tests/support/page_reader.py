"""Reads a report page as a browser would: its elements in order, its tables and numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}
Attributes = tuple[tuple[str, str | None], ...]


@dataclass
class Cell:
    """The text of a cell, and the exact numbers in it."""

    text: str = ""
    numbers: list[float] = field(default_factory=list)


@dataclass
class ReadTable:
    """A table: its caption, the heads of its columns, and its rows, the head of each first."""

    caption: str = ""
    columns: list[Cell] = field(default_factory=list)
    rows: list[list[Cell]] = field(default_factory=list)

    def row(self, name: str) -> dict[str, Cell]:
        """The cells of a row by the heads of their columns."""
        (found,) = (row for row in self.rows if row[0].text == name)
        return dict(zip((one.text for one in self.columns), found, strict=True))


class ReadPage(HTMLParser):
    """A parsed page.

    Attributes:
        elements: every tag with its attributes, in order, and ``/name`` where it ends.
        tables: every table.
        text: everything that is no tag, but for the style.
        style: the style.
        drawn: the exact numbers of the pictures.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Attributes]] = []
        self.tables: list[ReadTable] = []
        self.text, self.style = "", ""
        self.drawn: list[float] = []
        self._open: list[str] = []
        self._cell: Cell | None = None
        self.feed(text)
        self.close()
        assert self._open == [], "an element is not closed"

    def find(self, name: str) -> list[dict[str, str]]:
        """The attributes of every element of a name."""
        return [{k: v or "" for k, v in given} for tag, given in self.elements if tag == name]

    def table(self, caption: str) -> ReadTable:
        """The only table of a caption."""
        (found,) = (one for one in self.tables if one.caption == caption)
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append(ReadTable())
        elif tag == "tr" and self._open.count("tbody"):
            self.tables[-1].rows.append([])
        elif tag in ("th", "td"):
            self._cell = Cell()
            table = self.tables[-1]
            (table.rows[-1] if "tbody" in self._open else table.columns).append(self._cell)
        value = dict(attrs).get("data-value")
        if value is not None:
            number = float(value)
            assert repr(number) == value or repr(int(value)) == value
            if self._cell:
                self._cell.numbers.append(number)
            elif "svg" in self._open:
                self.drawn.append(number)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag not in VOID
        assert self._open.pop() == tag, f"{tag} ends another element"
        self.elements.append((f"/{tag}", ()))
        if tag in ("th", "td"):
            self._cell = None

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            self.style += data
            return
        self.text += data
        if self._cell is not None:
            self._cell.text += data
        elif self._open and self._open[-1] == "caption":
            self.tables[-1].caption += data
