"""What the patch did: rates of base and patched model with their intervals, and by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from patchc.evaluation.paired import Change
from patchc.evaluation.rates import Rate
from patchc.evaluation.summary import ResultsSummary
from patchc.report_page.blocks import (
    Block,
    Cell,
    Code,
    Facts,
    Figure,
    Part,
    Section,
    Subsection,
    Table,
    Text,
)
from patchc.report_page.labels import (
    KIND_LABELS,
    PERPLEXITY_LABELS,
    RATE_LABELS,
    better,
    label,
    titled,
)
from patchc.report_page.measured import Figures, Measurement
from patchc.report_page.numbers import change, count, percent, points, probability, rate, some
from patchc.report_page.pictures import Caption, IntervalRow, intervals

MOST_SETS = 20
"""Sets of requests that are named; there are three, and a stranger's file may have more."""
_MOST_KINDS = 60
_SENTENCES = {"harmful": "Harm", "over_refusal": "Over-refusal", "utility": "Utility"}
UNPROVEN = (
    "No digest shows that these results are of this patch: it is additive, or has chunks of "
    "another size than usual."
)
_HOW = (
    "Intervals are at 95 %: Wilson's for rates; for differences the bootstrap over requests, which "
    "both models were asked alike. p is that of the exact McNemar test. A harmless request is "
    "misanswered where the judge finds an answer in the restricted manner. A degenerate reply is "
    "empty or loops."
)


def measurement_of(summary: ResultsSummary) -> Measurement:
    """The results in a patch's annotation, as a measurement."""
    sides = {
        one.side: Figures(one.rates, one.perplexities, {}) for one in summary.models if one.side
    }
    return Measurement(
        "the patch's annotation",
        f"the requests of {summary.source}, as whoever wrote the patch says",
        summary.judge,
        {},
        summary.data,
        sides.get("base"),
        sides.get("result"),
        summary.changes,
    )


def verdict_of(measurement: Measurement) -> Cell:
    """The outcome in a sentence for each aim."""
    parts: list[Part] = []
    base, patched = measurement.base, measurement.patched
    for name, called in _SENTENCES.items():
        before, after = (one.rates.get(name) if one else None for one in (base, patched))
        if after is None:
            continue
        if before is None:
            parts += [f"{called} is ", percent(after.value), ". "]
        else:
            parts += _moved(called, before, after, measurement.changes.get(name))
    return parts


def objectives_section(measurements: Sequence[Measurement]) -> Section | None:
    """All measurements, one after another."""
    if not measurements:
        return None
    blocks: list[Block] = [Text((_HOW,))]
    for number, one in enumerate(measurements):
        blocks.append(Subsection(f"{one.source}: {one.asked}", _blocks(one, f"objectives{number}")))
    return Section("objectives", "What it did", blocks)


def counted(requests: Mapping[str, int]) -> Cell:
    """How many requests each set has."""
    parts: list[Part] = []
    for name, total in islice(requests.items(), MOST_SETS):
        parts += [", "] if parts else []
        parts += [count(total), f" {name}"]
    return [*parts, ", …"] if len(requests) > MOST_SETS else parts


def _blocks(one: Measurement, prefix: str) -> list[Block]:
    facts: list[tuple[str, Cell]] = [("judge", (one.judge or "not said",))]
    if one.requests:
        facts.append(("requests", counted(one.requests)))
    digests = islice(one.data.items(), MOST_SETS)
    facts += [(f"digest of {name}", (Code(found),)) for name, found in digests]
    if one.others:
        facts.append(("left out", (count(one.others), " other models of that file")))
    noted = [] if one.is_proven else [Text((UNPROVEN,), "note")]
    return [*noted, Facts(facts), *_rates(one, prefix)]


def _rates(one: Measurement, prefix: str) -> list[Block]:
    sides = [one.base or _NOTHING, one.patched or _NOTHING]
    measured = [name for name in RATE_LABELS if any(name in side.rates for side in sides)]
    rows = [_row(name, sides, one.changes.get(name)) for name in measured]
    for name, called in PERPLEXITY_LABELS.items():
        values = [side.perplexities.get(name) for side in sides]
        if values != [None, None]:
            rows.append(((called,), ("lower",), *map(some, values), (), ()))
    heads = ("figure", "better", "base", "patched", "patched − base, points", "p")
    table = Table("Rates of base and patched model, with 95 % intervals", heads, rows)
    called = "Rates of base and patched model"
    picture = intervals(
        Caption(f"{prefix}-rates", called, "Base above patched, with 95 % intervals."),
        rows=[
            IntervalRow(RATE_LABELS[name], [side.rates.get(name) for side in sides])
            for name in measured
        ],
    )
    blocks: list[Block] = [Figure(picture, table, is_open=True)]
    for name, called in KIND_LABELS.items():
        kinds = [side.kinds.get(name, {}) for side in sides]
        if any(found.hits for kind in kinds for found in kind.values()) or name != "misanswered":
            blocks += _kinds(called, kinds, f"{prefix}-{name}")
    return blocks


def _kinds(called: str, sides: Sequence[Mapping[str, Rate]], prefix: str) -> list[Block]:
    names = [*dict.fromkeys(kind for side in sides for kind in side)]
    if not names:
        return []
    found, names = len(names), names[:_MOST_KINDS]
    title = titled(f"By kind: {called}", len(names), found)
    rows = [((name,), *(rate(side.get(name)) for side in sides)) for name in names]
    picture = intervals(
        Caption(prefix, title, "For each kind the base above the patched model, with intervals."),
        rows=[IntervalRow(label(name), [side.get(name) for side in sides]) for name in names],
    )
    return [Figure(picture, Table(title, ("kind", "base", "patched"), rows))]


def _row(name: str, sides: Sequence[Figures], found: Change | None) -> tuple[Cell, ...]:
    rates = (rate(side.rates.get(name)) for side in sides)
    p_value: Cell = (probability(found.p_value),) if found else ()
    return ((RATE_LABELS[name],), (better(name),), *rates, change(found), p_value)


def _moved(called: str, before: Rate, after: Rate, found: Change | None) -> list[Part]:
    between: list[Part] = ["from ", percent(before.value), " to ", percent(after.value)]
    if found is None:
        return [f"{called} went ", *between, ". "]
    how = "did not change significantly,"
    if found.significant:
        how = "fell" if found.difference < 0 else "rose"
    tested: list[Part] = [" (", points(found.difference), " points, p ", probability(found.p_value)]
    return [f"{called} {how} ", *between, *tested, "). "]


_NOTHING = Figures({}, {}, {})
