"""The annotation of a patch: a name, a note and measured results in its metadata.

It is read as a stranger's: what is malformed is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from patchc.errors import UsageError

if TYPE_CHECKING:
    from patchc.evaluation.summary import ResultsSummary

KEY = "annotation"
"""The key of the metadata."""

MOST_NAME = 200
MOST_NOTE = 10_000


@dataclass(frozen=True)
class Annotation:
    """What a patch is called and said to do.

    Attributes:
        name: one line of at most 200 characters; empty if it has none.
        note: lines of at most 10,000 characters together; empty if there is none.
        results: what was measured with it; None if there is nothing.
    """

    name: str = ""
    note: str = ""
    results: ResultsSummary | None = None

    def with_texts(self, name: str | None, note: str | None) -> Annotation:
        """Change the name and the note; None leaves one as it is.

        Raises:
            UsageError: one of them cannot be stored; says why.
        """
        if name and not _is_name(name):
            raise UsageError(
                f"name {name[:60]!r}: it must be one line of at most {MOST_NAME} printable "
                "characters; shorten it, and put the rest into the note"
            )
        if note and not _is_note(note):
            raise UsageError(
                f"note {note[:60]!r}: it must be text of at most {MOST_NOTE:,} printable "
                "characters and line ends; shorten it"
            )
        return replace(
            self,
            name=self.name if name is None else name,
            note=self.note if note is None else note,
        )

    def in_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return metadata with this annotation in place of its own; without one, if it is empty."""
        content: dict[str, Any] = {"name": self.name, "note": self.note}
        content["results"] = self.results and self.results.to_json()
        content = {name: value for name, value in content.items() if value}
        others = {name: value for name, value in metadata.items() if name != KEY}
        return others | ({KEY: content} if content else {})


def annotation_of(metadata: Mapping[str, Any]) -> Annotation:
    """Read the annotation of a patch."""
    content = metadata.get(KEY)
    if not isinstance(content, dict):
        return Annotation()
    name, note, results = (content.get(key) for key in ("name", "note", "results"))
    summary = None
    if results is not None:
        from patchc.evaluation.summary import parse_summary

        summary = parse_summary(results)
    return Annotation(
        name if isinstance(name, str) and _is_name(name) else "",
        note if isinstance(note, str) and _is_note(note) else "",
        summary,
    )


def _is_name(text: str) -> bool:
    return len(text) <= MOST_NAME and text.isprintable()


def _is_note(text: str) -> bool:
    return len(text) <= MOST_NOTE and text.replace("\n", "").isprintable()
