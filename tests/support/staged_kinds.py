"""Staged files and staged folders as two kinds of one test."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from patchc.files import staged_file, staged_folder


@dataclass(frozen=True)
class Kind:
    """A staged file, or a staged folder with a file in it."""

    stage: Callable[..., AbstractContextManager[Path]]

    def place(self, path: Path) -> Path:
        """The file that holds the text of an output."""
        return path if self.stage is staged_file else path / "part"

    def write(
        self,
        out: Path,
        text: str = "new",
        meanwhile: Callable[[], object] = lambda: None,
        **options: bool,
    ) -> None:
        """Write an output, and call ``meanwhile`` before it gets its name."""
        with self.stage(out, **options) as staging:
            self.place(staging).write_text(text)
            meanwhile()

    def make(self, out: Path, text: str) -> None:
        """Make an output by other means."""
        self.place(out).parent.mkdir(exist_ok=True)
        self.place(out).write_text(text)

    def read(self, out: Path) -> str:
        """The text of an output."""
        return self.place(out).read_text()


FILE, FOLDER = Kind(staged_file), Kind(staged_folder)


def raising(error: BaseException) -> Callable[[], None]:
    """A function that raises an error."""

    def call() -> None:
        raise error

    return call


def names(folder: Path) -> set[str]:
    """The names in a folder."""
    return {path.name for path in folder.iterdir()}
