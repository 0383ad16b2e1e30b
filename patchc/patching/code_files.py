"""Files of a patch that a loader or an interpreter would run, and the refusal of such a patch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchc.checkpoint import Checkpoint
from patchc.errors import CodeError
from patchc.formats import Patch
from patchc.patching.code_contents import Content, reason_by_content
from patchc.patching.code_names import reason_by_name
from patchc.patching.code_settings import reason_by_settings
from patchc.patching.file_changes import FileChanges
from patchc.sides import OTHER, Side

Verb = Literal["apply", "revert"]
_MOST_NAMED = 20


@dataclass(frozen=True)
class CodeFile:
    """A file that a patch writes, and that a loader or an interpreter would run.

    Attributes:
        name: path below the model's folder.
        reason: what makes it code.
        written_by: "apply", or "revert" where taking the patch back writes it.
    """

    name: str
    reason: str
    written_by: Verb


@dataclass(frozen=True)
class CodeReport:
    """The code in a patch.

    Attributes:
        files: those that are code; a file may be code on either side.
        unchecked: other files of which the patch holds a part alone, so that only a run with the
            model can tell.
    """

    files: tuple[CodeFile, ...] = ()
    unchecked: tuple[str, ...] = ()


NO_CODE = CodeReport()

_WRITTEN_BY: dict[Side, Verb] = {"result": "apply", "base": "revert"}


def code_in_patch(patch: Patch) -> CodeReport:
    """Find the code that a patch brings, as far as its file alone tells.

    Raises:
        PatchFormatError: a body is damaged.
    """
    found: list[CodeFile] = []
    unchecked = []
    for number, file in enumerate(patch.index.files):
        if file.is_header:
            continue
        middles, cut = memoryview(patch.read_middles(number)), file.base_middle
        parts: dict[Side, Content] = {"base": middles[:cut], "result": middles[cut:]}
        for target in filter(file.on, OTHER):
            before, after = parts[OTHER[target]], parts[target]
            if reason := _reason(file.name, before, after, at_start=not file.prefix):
                found.append(CodeFile(file.name, reason, _WRITTEN_BY[target]))
        if file.prefix or file.suffix:
            unchecked.append(file.name)
    certain = {one.name for one in found if one.written_by == "apply"}
    return CodeReport(tuple(found), tuple(name for name in unchecked if name not in certain))


def code_to_write(
    patch: Patch, model: Checkpoint, target: Side, files: FileChanges | None = None
) -> tuple[CodeFile, ...]:
    """Find the code among the files that are written to take a model to side ``target``.

    ``files`` says how the model has them, where somebody has looked. Executable bits count where
    they tell files apart: file systems of Windows give them to all.

    Raises:
        CheckpointError, PatchFormatError: a file cannot be read or made.
    """
    found = []
    bits_tell = not all(_is_executable(model.stat(shard)) for shard in model.shards)
    for file, source, content in (files or FileChanges(patch, model)).side_files(target):
        reason = _reason(file.name, source or b"", content)
        is_old = not reason and source is not None
        if is_old and bits_tell and _is_executable((model.path / file.name).stat()):
            reason = "the model's file of this name is executable"
        if reason:
            found.append(CodeFile(file.name, reason, _WRITTEN_BY[target]))
    return tuple(found)


def refuse_code(patch: Path, found: Sequence[CodeFile]) -> None:
    """Refuse to write code.

    Raises:
        CodeError: naming each file, and why.
    """
    if not found:
        return
    verb = found[0].written_by
    listed = "; ".join(f"{one.name!r} ({one.reason})" for one in found[:_MOST_NAMED])
    more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    raise CodeError(
        f"{patch}: {verb} would write files that a loader or an interpreter runs: "
        f"{listed}{more}. Read them; where you trust who made the patch, give --allow-code"
    )


def _reason(name: str, before: Content, after: Content, at_start: bool = True) -> str | None:
    """Say what makes a file code, from both contents or what differs in them."""
    return (
        reason_by_name(name)
        or (reason_by_content(after) if at_start else None)
        or reason_by_settings(name, before, after)
    )


def _is_executable(state: os.stat_result) -> bool:
    return bool(state.st_mode & 0o111)
