"""The annotation of a patch as text: its name, its note, and a table of measured results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchc.verbs.annotation import Annotation


def annotation_facts(annotation: Annotation) -> dict[str, object]:
    """Describe the name and the note; a line each of the note's lines."""
    facts: dict[str, object] = {}
    if annotation.name:
        facts["name"] = annotation.name
    for number, line in enumerate(annotation.note.splitlines(), start=1):
        facts["note" if number == 1 else f"note {number}"] = line
    return facts


def print_results(annotation: Annotation) -> None:
    """Print the measured results, if there are any: a row for each rate, a column for each model.

    Nothing vouches for them but who wrote the patch, and the digests of what was asked.
    """
    from patchc.cli.output import FIGURES, difference, print_facts, print_table, share

    results = annotation.results
    if results is None:
        return
    sides = {"base": "base", "result": "patched"}
    columns = [sides.get(one.side or "", one.model or one.digest) for one in results.models]
    rows = []
    for name, shown in FIGURES.items():
        cells = [
            share(one.rates[name])
            if name in one.rates
            else f"{one.perplexities[name]:.4g}"
            if name in one.perplexities
            else ""
            for one in results.models
        ]
        change = difference(results.changes[name]) if name in results.changes else ""
        if any(cells):
            rows.append((shown, *cells, change))
    judged = f"; judged by {results.judge}" if results.judge else ""
    print_table(
        f"results that its writer measured{judged}; rates in % [95 %]",
        ("", *columns, "patched − base, points"),
        rows,
        hide_empty=True,
    )
    asked: dict[str, object] = {f"asked: {name}": one for name, one in results.data.items()}
    print_facts("digests", asked | {f"file of {results.source}": results.file})
