"""Where a campaign keeps its inputs and findings, and the table that it prints."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MOST_OF_A_KIND = 3
_COLUMNS = {
    "target": "target",
    "seconds": "s",
    "executions": "executions",
    "per_second": "per s",
    "edges": "edges",
    "features": "features",
    "inputs": "inputs",
    "lines": "lines",
    "replayed": "replayed",
    "longest_s": "longest, s",
    "most_mb": "most, MB",
    "findings": "findings",
}
"""Keys of a row, and the heads of their columns."""


def name_of(data: bytes) -> str:
    """The name of the file that keeps an input."""
    return hashlib.sha256(data).hexdigest()[:16]


@dataclass(frozen=True)
class Folders:
    """The folders of a target below the output of a campaign; they are made when first used.

    Attributes:
        out: the output.
        name: of the target.
    """

    out: Path
    name: str

    @property
    def corpus(self) -> Path:
        """Inputs that each reach something new."""
        return self._made("corpus")

    @property
    def findings(self) -> Path:
        """Inputs with which something went wrong, and beside each what was told."""
        return self._made("findings")

    def _made(self, kind: str) -> Path:
        folder = self.out / kind / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, kind: str, data: bytes, told: str) -> None:
        """Keep a finding, unless there are several of its kind already."""
        start = re.sub(r"[^\w.]+", "-", kind)
        if len([*self.findings.glob(f"{start}-*.txt")]) < _MOST_OF_A_KIND:
            path = self.findings / f"{start}-{name_of(data)}"
            path.write_bytes(data)
            path.with_name(f"{path.name}.txt").write_text(told)

    def keep_to_replay(self, data: bytes) -> None:
        """Keep an input that is slow with interpreted loops; the replay tells whether it is."""
        (self._made("again") / name_of(data)).write_bytes(data)

    def begin(self) -> None:
        """Let the replay tell whether what an earlier run has found is still so."""
        for path in self.findings.iterdir():
            if path.suffix != ".txt":
                self.keep_to_replay(path.read_bytes())
            path.unlink()

    def inputs(self) -> Iterator[Path]:
        """All inputs that are read once more."""
        for kind in ("corpus", "again"):
            yield from sorted(self._made(kind).iterdir())

    def found(self) -> list[Path]:
        """The findings."""
        return sorted(path for path in self.findings.iterdir() if path.suffix != ".txt")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table of Markdown."""
    heads = [*_COLUMNS.values()]
    texts = [[_text(row, key) for key in _COLUMNS] for row in rows]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key, "")
    if key == "lines" and row.get("lines_of"):
        return f"{value} of {row['lines_of']}"
    return f"{value:,}" if isinstance(value, int) else str(value)
