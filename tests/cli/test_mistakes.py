"""The tables of docs/reference/mistakes.md, row by row, against real runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import run
from mistaken_inputs import write_place

DOCUMENT = Path(__file__).parents[2] / "docs/reference/mistakes.md"
TYPED = re.compile(r"^\| [^|]+ \| `patchc [^|]*\|.*\| \d+ \|")
SHORT = re.compile(r"^- `patchc (\w+) …` is `patchc (.+)`$", re.M)
REST = dict(SHORT.findall(DOCUMENT.read_text()))


@dataclass(frozen=True)
class Row:
    """One mistake of a table."""

    section: str
    mistake: str
    typed: str
    message: str
    code: int
    remedy: str


def _rows() -> list[Row]:
    rows, section = [], ""
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif TYPED.match(line):
            mistake, typed, message, code, remedy = (one.strip() for one in line[1:-1].split("|"))
            rows.append(Row(section, mistake, typed.strip("`"), message, int(code), remedy))
    return rows


ROWS = _rows()


def test_every_row_is_read_and_no_mistake_is_there_twice() -> None:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    tables = sum(line.startswith("|---") for line in lines)
    assert len(ROWS) == len(lines) - 2 * tables
    assert len({row.typed for row in ROWS}) == len(ROWS) >= 30


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = Path.cwd()
    yield write_place(tmp_path_factory.mktemp("place"))
    os.chdir(before)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}, {row.mistake}")
def test_a_mistake_is_answered_as_the_document_says(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Row
) -> None:
    copy = shutil.copytree(place, tmp_path / "place")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if "extra" in row.mistake:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    before = _content(copy)
    code, _, errors = _type(row.typed)
    assert code == row.code, errors
    assert row.message in " ".join(errors.replace("│", " ").split())
    assert _content(copy) == before
    if row.remedy.startswith("`patchc "):
        code, _, errors = _type(row.remedy.strip("`"))
        assert code == 0, errors


def _type(typed: str) -> tuple[int, str, str]:
    _, command, *rest = shlex.split(typed)
    if rest[:1] == ["…"]:
        return run(*shlex.split(REST[command]), *rest[1:])
    return run(command, *rest)


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }
