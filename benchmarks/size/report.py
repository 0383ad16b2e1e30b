"""The tables of the size benchmark, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from measure import Measured, Own, Row

BEGIN, END = "<!-- size: begin -->", "<!-- size: end -->"
HALF = 0.5
WITHIN, AIM, MANY = 1.15, 1.10, 1_000_000


def write_report(measured: list[Measured], readme: Path, details: Path, machine: str) -> None:
    """Put the overview between its markers in ``readme``, and all figures into ``details``."""
    text = readme.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    parts = (_sizes(measured), _targets(measured), _times(measured), [machine])
    overview = "\n\n".join("\n".join(part) for part in parts)
    readme.write_text(f"{before}{BEGIN}\n{overview}\n{END}{after}")
    head = (
        "# Sizes, pair by pair", "",
        "Written by `make bench-size`; what is measured, and how: [README.md](README.md).", "",
        machine, "",
    )  # fmt: skip
    sections = [line for one in measured for line in _section(one)]
    details.write_text("\n".join((*head, *sections)))


def summary(one: Measured) -> str:
    """A pair in one line, for the terminal."""
    own, best = one.own, _best_peer(one)
    return (
        f"  patchc {own.auto.nbytes:,} bytes, {_bits(own.auto, own)} bits per change, "
        f"{_over(own):.3f} of the bound, {_ratio(one):.2f} of {best.name}; "
        f"encodes {_speed(one, own.auto.encode)} GB/s, decodes {_speed(one, own.auto.decode)} GB/s"
    )


def _sizes(measured: list[Measured]) -> list[str]:
    lines = [
        "| pair | changed | of all | bound, kB | patchc, kB | bits per change | file / bound"
        " | framing, kB | rice, kB | best peer | its kB | patchc / it |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in measured:
        own, best = one.own, _best_peer(one)
        lines.append(
            f"| {one.pair.name} | {own.changed:,} | {own.changed / own.words:.2%} "
            f"| {_kb(_bound(own))} | {_kb(own.auto.nbytes)} | {_bits(own.auto, own)} "
            f"| {_over(own):.3f} | {_kb(own.framing)} | {_kb(own.rice.nbytes)} "
            f"| {best.name} | {_kb(best.nbytes)} | {_ratio(one):.2f} |"
        )
    return lines


def _targets(measured: list[Measured]) -> list[str]:
    small = [one for one in measured if one.pair.small_steps]
    large = [one for one in measured if one.own.changed >= MANY]
    return [
        "| target | met on | missed on |",
        "|---|---|---|",
        _target("smaller than every peer", measured, _worst_ratio, lambda ratio: ratio < 1),
        _target(
            "at most half the best peer, updates of small steps",
            small, _ratio, lambda ratio: ratio <= HALF,
        ),
        _target(
            f"within 15 % of the bound, {MANY:,} changes and more",
            large, lambda one: _over(one.own), lambda over: over <= WITHIN,
        ),
        _target(
            "within 10 % of it: the aim",
            large, lambda one: _over(one.own), lambda over: over <= AIM,
        ),
    ]  # fmt: skip


def _target(
    text: str,
    pairs: list[Measured],
    figure: Callable[[Measured], float],
    met: Callable[[float], bool],
) -> str:
    missed = [f"{one.pair.name} ({figure(one):.3f})" for one in pairs if not met(figure(one))]
    return f"| {text} | {len(pairs) - len(missed)} of {len(pairs)} | {'; '.join(missed) or '-'} |"


def _times(measured: list[Measured]) -> list[str]:
    lines = [
        "| pair | base, MB | patchc encodes, GB/s | decodes | rice encodes | decodes"
        " | best peer encodes | decodes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in measured:
        rows = (one.own.auto, one.own.rice, _best_peer(one))
        speeds = (_speed(one, seconds) for row in rows for seconds in (row.encode, row.decode))
        lines.append(f"| {one.pair.name} | {one.nbytes / 1e6:,.0f} | {' | '.join(speeds)} |")
    return lines


def _section(one: Measured) -> list[str]:
    own, part = one.own, one.part
    return [
        f"## {one.pair.name}", "",
        f"{one.pair.what}. {own.changed:,} of {own.words:,} entries changed.", "",
        *_split(own), "",
        *_table(own, one.peers, one.nbytes), "",
        f"On a part of {part.words:,} words, {part.changed:,} of them changed:", "",
        *_table(part, one.part_peers, one.part_nbytes), "",
    ]  # fmt: skip


def _split(own: Own) -> list[str]:
    """Where patchc's bits go, beside the bound."""
    bodies = own.auto.nbytes - own.framing
    figures = {
        "bound, positions": own.positions / 8,
        "bound, steps": own.values / 8,
        "bodies above the bound": bodies - _bound(own),
        "framing": own.framing,
        "file": own.auto.nbytes,
    }
    return [
        f"| | {' | '.join(figures)} |",
        "|---" * (len(figures) + 1) + "|",
        f"| bytes | {' | '.join(f'{nbytes:,.0f}' for nbytes in figures.values())} |",
        "| bits per change | "
        + " | ".join(f"{8 * nbytes / max(own.changed, 1):.3f}" for nbytes in figures.values())
        + " |",
    ]


def _table(own: Own, peers: Iterable[Row], base: int) -> list[str]:
    return [
        "| how | bytes | bits per change | encode, MB/s | decode, MB/s | |",
        "|---|---|---|---|---|---|",
        *(_line(row, own, base) for row in (own.auto, own.rice, *peers)),
    ]


def _line(row: Row, own: Own, base: int) -> str:
    speeds = (f"{base / s / 1e6:,.0f}" if s else "-" for s in (row.encode, row.decode))
    return (
        f"| {row.name} | {row.nbytes:,} | {_bits(row, own)} | {' | '.join(speeds)} | {row.fault} |"
    )


def _best_peer(one: Measured) -> Row:
    """The smallest file of a lossless peer."""
    return min((row for row in one.peers if not row.fault), key=lambda row: row.nbytes)


def _ratio(one: Measured) -> float:
    return one.own.auto.nbytes / _best_peer(one).nbytes


def _worst_ratio(one: Measured) -> float:
    """Over the peers that take the whole pair, and those that take a part."""
    parts = [row.nbytes for row in one.part_peers if not row.fault]
    return max([_ratio(one), *(one.part.auto.nbytes / nbytes for nbytes in parts)])


def _bound(own: Own) -> float:
    return (own.positions + own.values) / 8


def _over(own: Own) -> float:
    return own.auto.nbytes / max(_bound(own), 1)


def _bits(row: Row, own: Own) -> str:
    return f"{8 * row.nbytes / max(own.changed, 1):.2f}"


def _kb(nbytes: float) -> str:
    return f"{nbytes / 1e3:,.1f}" if nbytes < 1e5 else f"{nbytes / 1e3:,.0f}"


def _speed(one: Measured, seconds: float) -> str:
    return f"{one.nbytes / seconds / 1e9:.2f}" if seconds else "-"
