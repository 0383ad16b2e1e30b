"""How the patch was fitted: losses by step, the measured points, and what ``fix`` says of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from patchc.evaluation.summary import RATE_NAMES
from patchc.evaluation.trials import Trial
from patchc.report_page.blocks import (
    Block,
    Cell,
    Facts,
    Figure,
    Lines,
    Section,
    Subsection,
    Table,
    Text,
)
from patchc.report_page.fit_trace import FitTrace, Loss, TracedPoint
from patchc.report_page.fix_results import FixResults
from patchc.report_page.labels import RATE_LABELS, titled
from patchc.report_page.measured import Figures
from patchc.report_page.numbers import count, percent, rate, some
from patchc.report_page.pictures import Caption, Line, LinePoint, lines
from patchc.report_page.sections.objectives import MOST_SETS

_MOST_ROWS = 400
_MOST_POINTS = 100
_MOST_SENTENCES = 50
_TRACED = ("harmful", "over_refusal", "misanswered", "utility")
_WHOSE = (
    "A trace names its base alone, so that nothing shows that the fit which it is of gave this "
    "patch."
)


def fitting_section(fixes: Sequence[FixResults], traces: Sequence[FitTrace]) -> Section | None:
    """What the reports of ``fix`` and the traces of ``fit`` say."""
    blocks: list[Block] = [Subsection(one.source, _fix(one)) for one in fixes]
    for number, trace in enumerate(traces):
        blocks.append(Subsection(trace.source, _trace(trace, f"fit{number}")))
    return Section("fit", "How it was fitted", blocks) if blocks else None


def _fix(one: FixResults) -> list[Block]:
    facts: list[tuple[str, Cell]] = [
        ("made by", (f"patchc {one.version}",)),
        ("objective", (one.objective,)),
        ("seed", (count(one.seed),)),
    ]
    for name, (development, test) in islice(one.split.items(), MOST_SETS):
        learned = one.learned.get(name, 0)
        parts = (" for development, ", count(learned), " of them to learn from; ", count(test))
        facts.append((f"{name} requests", (count(development), *parts, " for the test")))
    facts += [
        ("steps", (count(one.steps), f" ({one.ended})")),
        ("refusals begin", (", ".join(map(repr, one.openings)),)),
        ("covered", (percent(one.covered), " of the base's refusals begin so")),
    ]
    rows = [
        _row(f"step {point.step}{', chosen' if point.chosen else ''}", point.figures,
             (percent(point.agreement),), (", ".join(point.against),))
        for point in one.points[:_MOST_POINTS]
    ]  # fmt: skip
    base = one.development.base
    if base:
        rows.insert(0, _row("base", base, (), ()))
    heads = ("point", *RATE_LABELS.values(), "perplexity", "margin agrees", "against it")
    shown = min(len(one.points), _MOST_POINTS)
    title = titled("Points measured on the development requests", shown, len(one.points))
    said = _sentences([*one.verdict, *one.warnings])
    return [Facts(facts), Subsection("What fix says", said), Table(title, heads, rows)]


def _sentences(all_of_them: Sequence[str]) -> list[Block]:
    """Sentences in boxes, as they are the file's own words."""
    shown = [Lines(sentence) for sentence in all_of_them[:_MOST_SENTENCES]]
    rest = len(all_of_them) - len(shown)
    more = [Text(("More sentences, not shown: ", count(rest), "."))] if rest else []
    return [Text(("In the words of that file:",)), *shown, *more]


def _row(name: str, figures: Figures, agreement: Cell, against: Cell) -> tuple[Cell, ...]:
    rates = (rate(figures.rates.get(one)) for one in RATE_LABELS)
    return ((name,), *rates, some(figures.perplexities.get("perplexity")), agreement, against)


def _trace(trace: FitTrace, prefix: str) -> list[Block]:
    blocks: list[Block] = [Text((_WHOSE,))]
    if trace.losses:
        blocks.append(_losses(trace.losses, f"{prefix}-losses"))
    if trace.points:
        blocks.append(_points(trace, f"{prefix}-points"))
    if not (trace.losses or trace.points):
        blocks.append(Text(("The trace has no step yet.",)))
    return blocks


def _losses(losses: Sequence[Loss], prefix: str) -> Figure:
    shown = _thinned(losses)
    title = "Losses by step"
    if len(shown) < len(losses):
        title += f" ({len(shown)} of {len(losses):,} steps)"
    series = [
        Line(name, [LinePoint(one.step, value) for one, value in values if value is not None])
        for name, values in (
            ("batch", [(one, one.loss) for one in shown]),
            ("validation", [(one, one.validation) for one in shown]),
        )
    ]
    picture = lines(
        Caption(prefix, title, "The loss of each step's batch, and on requests that none sees."),
        series=[one for one in series if one.points],
        x_label="step",
        y_label="loss",
    )
    rows = [((count(one.step),), some(one.loss), some(one.validation)) for one in shown]
    return Figure(picture, Table(title, ("step", "batch", "validation"), rows))


def _points(trace: FitTrace, prefix: str) -> Figure:
    points = trace.points[:_MOST_POINTS]
    title = titled("Points measured by generation", len(points), len(trace.points))
    series = [one for name in _TRACED if (one := _traced(name, points))]
    picture = lines(
        Caption(
            prefix,
            title,
            "Rates on the development requests after so many steps; the base's are thin, across.",
        ),
        series=series,
        x_label="step",
        y_label="rate",
        numbers="percent",
        levels="base",
    )
    rows = [
        _row("base" if one.agreement is None else f"step {one.step}", _figures(one.trial),
             () if one.agreement is None else (percent(one.agreement),), ())[:-1]
        for one in points
    ]  # fmt: skip
    heads = ("point", *RATE_LABELS.values(), "perplexity", "margin agrees")
    return Figure(picture, Table(title, heads, rows))


def _traced(name: str, points: Sequence[TracedPoint]) -> Line | None:
    """The course of a rate, with the base's across; None where no point has it."""
    rates = [(one, found) for one in points if (found := _figures(one.trial).rates.get(name))]
    base = [found.value for one, found in rates if one.agreement is None]
    course = [
        LinePoint(one.step, found.value, found.low, found.high)
        for one, found in rates
        if one.agreement is not None
    ]
    return Line(RATE_LABELS[name], course, base[0] if base else None) if rates else None


def _figures(trial: Trial) -> Figures:
    rates = {name: found for name in RATE_NAMES if (found := getattr(trial, name)) is not None}
    perplexity = {} if trial.perplexity is None else {"perplexity": trial.perplexity}
    return Figures(rates, perplexity, {})


def _thinned(losses: Sequence[Loss]) -> Sequence[Loss]:
    """Every so many steps, and the last one, where there are more than a table should have."""
    stride = -(-len(losses) // _MOST_ROWS)
    return [one for number, one in enumerate(losses) if not (len(losses) - 1 - number) % stride]
