"""The tables of the size benchmark, as Markdown."""

from __future__ import annotations

from pathlib import Path

from measure import Measured, Row

BEGIN, END = "<!-- size: begin -->", "<!-- size: end -->"


def write_report(measured: list[Measured], readme: Path, details: Path, machine: str) -> None:
    """Put the overview between its markers in ``readme``, and all figures into ``details``."""
    text = readme.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    overview = "\n".join((machine, "", *_overview(measured)))
    readme.write_text(f"{before}{BEGIN}\n{overview}\n{END}{after}")
    sections = [line for one in measured for line in _section(one)]
    head = (
        "# Sizes, pair by pair", "",
        "Written by `make bench-size`; what is measured, and how: [README.md](README.md).", "",
        machine, "",
    )  # fmt: skip
    details.write_text("\n".join((*head, *sections)))


def _overview(measured: list[Measured]) -> list[str]:
    lines = [
        "| pair | changed | entropy | patchc | above | framing | best peer | its bits | patchc / it"
        " | encode, GB/s | decode, GB/s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in measured:
        own, best = one.rows[0], _best_peer(one)
        lines.append(
            f"| {one.pair.name} | {_share(one)} | {one.entropy:.2f} | {own.bits:.2f} "
            f"| {_above(own, one)} | {one.framing:.2f} | {best.name} | {best.bits:.2f} "
            f"| {own.bits / best.bits:.2f} | {own.encode / 1e9:.2f} | {own.decode / 1e9:.2f} |"
        )
    return lines


def _section(one: Measured) -> list[str]:
    return [
        f"## {one.pair.name}", "",
        f"{one.pair.what}. {one.changed:,} of {one.words:,} entries changed ({_share(one)}); "
        f"conditional entropy {one.entropy:.2f} bits per change.", "",
        "| how | bits per change | bytes | encode, MB/s | decode, MB/s | |",
        "|---|---|---|---|---|---|",
        *map(_line, one.rows), "",
        f"On a part of {one.part_words:,} words, the first of each tensor:", "",
        "| how | bits per change | bytes | encode, MB/s | decode, MB/s | |",
        "|---|---|---|---|---|---|",
        *map(_line, one.part_rows), "",
    ]  # fmt: skip


def _line(row: Row) -> str:
    return (
        f"| {row.name} | {row.bits:.2f} | {row.nbytes:,} | {row.encode / 1e6:,.0f} "
        f"| {row.decode / 1e6:,.0f} | {row.fault} |"
    )


def _best_peer(one: Measured) -> Row:
    return min((row for row in one.rows[1:] if not row.fault), key=lambda row: row.bits)


def _share(one: Measured) -> str:
    return f"{one.changed / one.words:.3%}"


def _above(own: Row, one: Measured) -> str:
    return f"{own.bits / one.entropy - 1:+.1%}" if one.entropy else ""
