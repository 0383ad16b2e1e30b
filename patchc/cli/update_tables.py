"""What diff and inspect print of an update: the tensors and files that it changes, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchc.checkpoint.left_aside import listed
from patchc.cli.output import print_table, size, tell

if TYPE_CHECKING:
    from patchc.verbs.updates import UpdateReport


def update_facts(update: UpdateReport | None, changed: int) -> dict[str, object]:
    """Count the changes of an update's result, and what the file holds to go both ways.

    Stands in place of the count of a patch of weights, which is the same both ways.

    Args:
        update: None for such a patch.
        changed: entries in the patch's file.
    """
    if update is None:
        return {}
    result = update.result
    facts: dict[str, object] = {
        "changed": f"{result.changed:,} of {result.words:,} entries of the result "
        f"({result.density:.4%}) in {result.changed_tensors:,} of {result.tensors:,} tensors"
    }
    if changed != result.changed:
        facts["both ways"] = f"{changed:,} entries in the patch, for apply and for revert"
    return facts


def beside_facts(
    names: Sequence[str], update: UpdateReport | None, advice: str = ""
) -> dict[str, object]:
    """Tell of files beside the model that a patch covers: receivers must have most of them.

    Args:
        names: of these files.
        update: tells which of them the patch adds.
        advice: what its maker can do about that.
    """
    files = update.files if update else ()
    added = {one.name for one in files if one.is_header and one.change == "added"}
    needed, new = [n for n in names if n not in added], [n for n in names if n in added]
    facts: dict[str, object] = {}
    if needed:
        facts["beside"] = f"{listed(needed)}: receivers must have it, too{advice}"
    if new:
        facts["beside, added"] = listed(new)
    return facts


def print_update(update: UpdateReport, most: int | None = None) -> None:
    """Print which tensors and files an update changes, at most ``most`` rows of each."""
    rows = [("added", name, "") for name in update.added]
    rows += [("removed", name, "") for name in update.removed]
    rows += [("renamed", old, f"to {new}") for old, new in update.renamed]
    rows += [("resized", n, f"{list(old)} to {list(new)}") for n, old, new in update.resized]
    rows += [("another dtype", name, f"{old} to {new}") for name, old, new in update.cast]
    _print("tensors", ("what", "tensor", "how"), rows, most)
    files = [
        (
            f"{file.change}, header" if file.is_header else file.change,
            file.name,
            f"{size(file.base_size)} to {size(file.result_size)}",
            f"{file.nbytes:,}",
        )
        for file in update.files
    ]
    _print("files", ("what", "file", "how", "bytes"), files, most)


def _print(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]], most: int | None
) -> None:
    if not rows:
        return
    print_table(title, columns, rows[:most])
    if most is not None and len(rows) > most:
        tell(f"… and {len(rows) - most:,} more; `patchc inspect` shows all")
