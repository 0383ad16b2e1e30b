"""What commands print of a patch's files: those it writes, those that run, and their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchc.cli.output import print_table

if TYPE_CHECKING:
    from patchc.patching.code_files import CodeFile, CodeReport
    from patchc.patching.foreign_names import NameNote
    from patchc.patching.left_alone import SideFile
    from patchc.patching.side_files import SideFileChange

KEEP = "--keep-side-files"


def print_written(written: Sequence[SideFileChange], dry_run: bool) -> None:
    """Print each side file that a copy has otherwise than the model."""
    if written:
        title = "side files that would be written" if dry_run else "side files"
        print_table(title, ("what", "file"), [(one.change, one.name) for one in written])


def print_left_alone(files: Sequence[SideFile], verb: str) -> None:
    """Print each side file that the patch changes and that the model keeps as it is.

    One that is on the wanted side already is changed on the way back.
    """
    target, back = ("result", "revert") if verb == "apply" else ("base", "apply")
    if files:
        rows = [
            (one.name, one.what + f"; {back} changes it" * (one.state == target)) for one in files
        ]
        print_table("side files left alone", ("file", "what"), rows)


def print_side_files(files: Sequence[SideFile]) -> None:
    """Print each side file that is not as the patch expects of a model."""
    if files:
        rows = [(f.name, f.what, "refused" if f.refused else "left alone") for f in files]
        print_table("side files that differ", ("file", "what", "apply and revert"), rows)


def side_file_words(files: Sequence[SideFile]) -> list[object]:
    """Write the option that a command needs which comes next, after files were left alone."""
    return [] if all(one.is_card for one in files) else [KEEP]


def print_code(files: Sequence[CodeFile]) -> None:
    """Print the files that a loader or an interpreter would run."""
    if files:
        rows = [(one.name, one.written_by, one.reason) for one in files]
        print_table("code: files that are run", ("file", "written by", "why"), rows)


def print_code_report(report: CodeReport) -> None:
    """Print the code in a patch, and the files that only a run with the model can tell of."""
    print_code(report.files)
    if report.unchecked:
        rows = [(name,) for name in report.unchecked]
        title = "perhaps code: the patch holds only a part of each, and apply checks the whole"
        print_table(title, ("file",), rows)


def print_name_notes(notes: Sequence[NameNote]) -> None:
    """Print names that other systems cannot have, or not tell apart."""
    if notes:
        rows = [(", ".join(map(repr, note.names)), note.reason) for note in notes]
        print_table("names", ("name", "what"), rows)
