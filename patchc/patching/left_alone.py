"""Side files that a model has otherwise than a patch expects: left alone and named, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from patchc.errors import SideFileError, UsageError
from patchc.notes import note
from patchc.other_kinds import START_BYTES, stand_in
from patchc.sides import Side

_MOST_NAMED = 20
_MARKED_UP = (".html", ".htm", ".xhtml", ".xml", ".svg")


@dataclass(frozen=True)
class SideFile:
    """A side file that a patch changes, as a model has it.

    Attributes:
        name: path below the model's folder.
        state: "base" or "result" where the model has it, or lacks it, as that side does; else
            "missing" or "differs".
        what: the state in words; names a Git LFS pointer or a web page in the file's place.
        is_card: whether it is a model card, or another file that people read and no loader does.
        refused: whether ``apply`` and ``revert`` refuse a model for it.
    """

    name: str
    state: Literal["base", "result", "missing", "differs"]
    what: str
    is_card: bool
    refused: bool


@dataclass(frozen=True)
class SideFileOptions:
    """What becomes of side files that are not as the patch expects.

    Attributes:
        keep: all of them are left alone, and not cards only.
        strict: all of them are refused, cards too.

    Raises:
        UsageError: both are asked for.
    """

    keep: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.keep and self.strict:
            raise UsageError(
                "--keep-side-files and --strict-side-files exclude each other; give one of them"
            )

    def refuse(self, is_card: bool) -> bool:
        """Whether a model is refused for such a file."""
        return self.strict or not (self.keep or is_card)


CARDS_ALONE = SideFileOptions()


def in_words(name: str, side: Side | None, content: bytes | None) -> str:
    """Say what a file is.

    Args:
        name: its path below the model's folder.
        side: the side that has it so, if one does.
        content: its bytes, or the first of them; None where it is missing.
    """
    if side is not None:
        return f"{'missing, ' if content is None else ''}as in the {side}"
    if content is None:
        return "missing"
    kind = stand_in(content[:START_BYTES], is_page=name.lower().endswith(_MARKED_UP))
    return kind or "its content differs"


def named(files: Sequence[SideFile]) -> str:
    """Name files, and say what each is."""
    listed = ", ".join(f"{one.name!r} ({one.what})" for one in files[:_MOST_NAMED])
    more = len(files) - _MOST_NAMED
    return f"{listed} and {more} more" if more > 0 else listed


def note_left_alone(model: object, files: Sequence[SideFile]) -> None:
    """Tell which side files a run leaves alone."""
    if files:
        note(f"side files of {model} are left alone: {named(files)}")


def refusal(
    patch: object, model: object, held: Side, files: Sequence[SideFile]
) -> SideFileError | None:
    """The error for side files of a model that holds a side; None where none is refused."""
    refused = [one for one in files if one.refused]
    if not refused:
        return None
    around = "leave the model's alone: apply, revert and verify take --keep-side-files"
    if all(one.is_card for one in refused):
        around = "leave --strict-side-files out, so that cards are left alone"
    return SideFileError(
        f"the weights of {model} are those of the {held} of {patch}, and side files are not: "
        f"{named(refused)}. Put the {held}'s in their place, or {around}"
    )
