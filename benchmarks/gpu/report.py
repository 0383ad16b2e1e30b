"""The tables of a run in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from gpu.timed_parts import Outcome


def heading(column: str) -> str:
    return column.replace("_", " ")


def cell(column: str, value: float | str) -> str:
    """A value as its column shows it: shares in percent, others with three figures."""
    if isinstance(value, float):
        if column.startswith("share"):
            return f"{value:.1%}"
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def figures(outcome: Outcome, mark: str) -> str:
    """All tables of a part, each under its name with a mark behind it."""
    return "\n".join(
        f"{outcome.name}: {name}{mark}\n\n{_rows(rows)}" for name, rows in outcome.tables.items()
    )


def _rows(rows: Sequence[dict[str, float | str]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[cell(one, row[one]) if one in row else "" for one in columns] for row in rows]
    return table(["", *map(heading, columns[1:])], cells)


def outcomes(found: Sequence[Outcome]) -> str:
    rows = [[one.name, one.state, f"{one.seconds:.0f}", one.reason] for one in found]
    return table(["part", "state", "seconds", ""], rows)
