"""What a matrix is asked for, what came of its points, and the table that says so."""

from __future__ import annotations

import random
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

_WIDTH = 160


@dataclass
class Matrix:
    """One matrix: the points to try, and their outcomes.

    Attributes:
        name: of the matrix.
        kept: where the folders of points with a fault are kept.
        faults: kinds of faults, each the first word of a fault's text.
        points: how many points each row gets.
        seed: every choice at a point follows from it, the row's name and the point's number.
        only: the one row to try; all if empty.
        point: the one point to try.
        counts: row → figures by name.
        failures: what went wrong, where, and how to see it again.
    """

    name: str
    kept: Path
    faults: tuple[str, ...]
    points: int
    seed: int = 0
    only: str = ""
    point: int | None = None
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def asks_for(self, row: str) -> bool:
        """Whether a row is to be tried."""
        return self.only in ("", row)

    def numbers(self, points: int) -> Iterable[int]:
        """The numbers of a row's points."""
        return range(points) if self.point is None else [self.point]

    def random(self, row: str, number: int) -> random.Random:
        """What draws the choices at a point."""
        return random.Random(f"{self.seed} {row} {number}")

    def add(
        self,
        row: str,
        number: int,
        counts: Mapping[str, int],
        faults: Iterable[str] = (),
        how: str = "",
        folder: Path | None = None,
    ) -> None:
        """Count what came of a point; with faults, say how and keep its folder."""
        figures = self.counts.setdefault(row, Counter())
        figures.update(counts)
        for text in faults:
            figures[text.split(":")[0]] += 1
            self.failures.append(f"{row}, {how}: {text}\n  {self._again(row, number, folder)}")

    def print(self) -> None:
        """Print the figures of each row, and the failures."""
        columns = dict.fromkeys(key for figures in self.counts.values() for key in figures)
        columns |= dict.fromkeys(self.faults)
        table = Table(title=f"{self.name} (seed {self.seed})", title_justify="left", box=None)
        table.add_column("")
        for column in columns:
            table.add_column(column, justify="right", overflow="fold")
        for row, figures in self.counts.items():
            table.add_row(row, *(str(figures[column]) for column in columns))
        console = Console(width=_WIDTH, highlight=False, markup=False)
        console.print(table)
        for failure in self.failures:
            console.print(f"FAULT {failure}", soft_wrap=True)

    def _again(self, row: str, number: int, folder: Path | None) -> str:
        command = [self.name, "--only", row, "--point", str(number), "--seed", str(self.seed)]
        again = f"again: python tests/torture/run.py {shlex.join(command)}"
        if folder and folder.exists():
            kept = self.kept / f"{self.name}-{row}-{number}".replace(" ", "")
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, symlinks=True)
            again += f"; kept: {kept}"
        return again
