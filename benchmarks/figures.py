"""Figures of a benchmark as JSON, rewritten after each one: a run that is killed leaves the rest.

The file names the device that the figures are of, then holds tables of rows, each row with its name
and its columns: ``{"device": …, "tables": {TABLE: [{"name": ROW, COLUMN: value, …}, …]}}``.
"""

from __future__ import annotations

import json
from pathlib import Path


class Figures:
    """The tables of one benchmark; without a path nothing is written."""

    def __init__(self, path: Path | None, device: str) -> None:
        self._path = path
        self._device = device
        self._tables: dict[str, list[dict[str, float | str]]] = {}

    def add(self, table: str, name: str, **columns: float | str) -> None:
        """Add a row, or replace the one of that name, and write the file."""
        rows = self._tables.setdefault(table, [])
        rows[:] = [row for row in rows if row["name"] != name]
        rows.append({"name": name, **columns})
        if self._path:
            write_json(self._path, {"device": self._device, "tables": self._tables})


def write_json(path: Path, content: object) -> None:
    """Write a whole file or none: a reader never meets half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)
