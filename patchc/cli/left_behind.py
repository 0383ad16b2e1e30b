"""What an interrupted command leaves, told from its files and not from what it usually leaves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from patchc.cli.entry import NOTHING

_AGAIN = "keeps what is done, and the same command goes on with it"


class LeftBehind:
    """A look at the places that a command adds to while it runs, before it begins.

    Args:
        command: its name.
        given: its parameters, by name.
    """

    def __init__(self, command: str | None, given: Mapping[str, Any]) -> None:
        # Typer's early versions give texts in place of paths here.
        outputs = ("out", "trace", "detached")
        named = {name: Path(given[name]) for name in outputs if given.get(name)}
        self._command, self._patch = command, given.get("patch")
        self._out = None if given.get("dry_run") else named.get("out") or named.get("detached")
        self._places = _places(command, self._out, named.get("trace")) if self._out else ()
        # Whoever began the folder of a fix, the same command goes on with it.
        self._before = {} if command == "fix" else self._look()

    def tell(self) -> str:
        """Say in a clause what is left now."""
        if self._out is None:
            signs = self._command == "sign"
            return f"{self._patch} is whole, signed or as it was" if signs else NOTHING
        if not self._places:
            return f"nothing new was left at {self._out}"  # it appears at once, when it is whole
        there = self._look()
        new = [str(path) for path, state in there.items() if state != self._before.get(path)]
        if not there:
            return NOTHING
        if not new:
            return f"{', '.join(map(str, there))} is as it was"
        names = ", ".join(new)
        if self._command == "derive":
            return f"{names} was written whole; leave it out with --directions, or remove it"
        if self._command == "demo":
            return f"{names} has what was made until then; remove it to begin again"
        return f"{self._out if self._command == 'fix' else names} {_AGAIN}"

    def _look(self) -> dict[Path, object]:
        found: dict[Path, object] = {}
        for path in self._places:
            with suppress(OSError):
                state = path.stat()
                below = sorted(path.iterdir()) if path.is_dir() else ()
                found[path] = (state.st_ino, state.st_size, state.st_mtime_ns, tuple(below))
        return found


def _places(command: str | None, out: Path, trace: Path | None) -> tuple[Path, ...]:
    match command:
        case "evaluate" | "landscape" | "sweep" | "demo":
            return (out,)
        case "fit":
            found = trace or (out.with_suffix(".fit.jsonl") if out.name else None)
            return (found,) if found else ()
        case "fix":
            return (out / "work",)
        case "derive":
            return tuple(out / direction for direction in ("se", "osm", "margin"))
        case _:
            return ()
