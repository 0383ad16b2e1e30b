"""``patchc status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from patchc.cli.options import Json, MaxMemory, ModelPath, Threads, argument, without

if TYPE_CHECKING:
    from patchc.verbs.status import PatchStatus, StatusReport

_MOST_LISTED = 3


def status(
    model: ModelPath,
    patches: Annotated[list[Path], argument("Patch files, in any order.", "PATCH...")],
    threads: Threads = None,
    max_memory: MaxMemory = None,
    json: Json = False,
) -> None:
    """Say which of these patches a model holds. Reads the model once for all of them.

    Patches of a chain tell of one another: what the second one leads to holds the first one too.

    Exit code 0: every patch was looked for, whatever was found.

    Example: patchc status models/chat monday.patchc tuesday.patchc
    """
    given = without(locals(), "json")
    import patchc
    from patchc.cli.output import print_json, warn
    from patchc.cli.showing_progress import showing_progress

    with showing_progress() as progress:
        report = patchc.status(**given, progress=progress)
    if report.interrupted:
        warn(report.interrupted)
    print_json(report) if json else _render(report)


def _render(report: StatusReport) -> None:
    from patchc.cli.output import print_facts

    facts: dict[str, object] = {}
    for number, one in enumerate(report.patches, start=1):
        name = str(one.path)
        facts[name if name not in facts else f"{name} ({number})"] = _in_words(one, report.model)
    held = sum(one.state == "patched" for one in report.patches)
    print_facts(f"status: {report.model} holds {held} of {len(report.patches)}", facts)


def _in_words(one: PatchStatus, model: Path) -> str:
    from patchc.patching.left_alone import named

    others = _listed(one.through)
    known = f"{model} is not the model that {one.path} was made for: "
    difference = one.difference.removeprefix(known).partition("; ")[0]
    differ = f"; side files differ: {named(one.side_files)}" if one.side_files else ""
    keep = any(file.refused for file in one.side_files)
    can = "can be applied" + (" with --keep-side-files" if keep else "")
    return {
        "patched": f"patched, and then with {others}{differ}" if others else f"patched{differ}",
        "base": f"base: it {can}{differ}",
        "before": f"not held: {_listed(one.through[::-1])} must be applied first{differ}",
        "partly patched": "partly patched: run apply or revert --in-place again if it was cut off, "
        "else take an intact copy",
        "neither": f"neither its base nor patched: {difference}",
        "unknown": "unknown: additive, cannot be recognised in a model that is not its base",
    }[one.state]


def _listed(paths: tuple[Path, ...]) -> str:
    """Name a few; a long chain would fill the screen once for each of its patches."""
    names = [*map(str, paths)]
    if len(names) <= _MOST_LISTED:
        return ", ".join(names)
    return f"{', '.join(names[: _MOST_LISTED - 1])} and {len(names) - _MOST_LISTED + 1} more"
