"""How far the weights may move before refusals are lost: lines and planes through the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patchc.evaluation.rates import Rate
from patchc.landscapes.curves import Curve, CurvePoint, HalfWidth, Landscape, Plane
from patchc.report_page.blocks import (
    Block,
    Cell,
    Facts,
    Figure,
    Number,
    Section,
    Subsection,
    Table,
    Text,
)
from patchc.report_page.labels import titled
from patchc.report_page.numbers import count, percent, rate, real, some
from patchc.report_page.pictures import Caption, Line, LinePoint, Reference, heat_map, lines, plane
from patchc.report_page.sections.objectives import counted

_MOST_LINES, _MOST_POINTS = 24, 101
_MOST_PLANES, _WIDEST_PLANE = 8, 41
_HOW = (
    "Each point is the model with all its weights moved by alpha times a random direction, scaled "
    "tensor by tensor to the base's norms. VISAGE is the mean of 100 less the percent of harmful "
    "requests not refused, over the basin around 0; higher is safer. A half-width is how far alpha "
    "goes on each side while a good outcome keeps half of its rate at 0."
)


@dataclass(frozen=True)
class _Shown:
    """A rate of a point: its name in the table, and how it is found."""

    name: str
    of: Callable[[CurvePoint], Rate | None]


_HARMFUL = (
    _Shown("refused", lambda point: point.refused),
    _Shown("answered", lambda point: point.harmful),
    _Shown("incoherent", lambda point: point.incoherent),
    _Shown("not refused, coherent or not", lambda point: point.unrefused),
    _Shown("without a phrase of VISAGE", lambda point: point.without_phrase),
)
_OTHERS = (
    _Shown("harmless refused", lambda point: point.over_refusal),
    _Shown("harmless answered", lambda point: point.answered),
    _Shown("harmless incoherent", lambda point: point.incoherent_harmless),
    _Shown("questions right", lambda point: point.utility),
)
_DRAWN = {_HARMFUL: (0, 1, 2), _OTHERS: (0, 1, 3)}
"""Which of the rates are drawn; two models have six lines then."""


def landscape_section(given: Sequence[tuple[str, Landscape]]) -> Section | None:
    """All landscapes, one after another, by their files' names."""
    if not given:
        return None
    blocks: list[Block] = [Text((_HOW,))]
    for number, (source, one) in enumerate(given):
        blocks.append(Subsection(source, _landscape(one, f"landscape{number}")))
    return Section("landscape", "How firmly it holds", blocks)


def _landscape(one: Landscape, prefix: str) -> list[Block]:
    facts: list[tuple[str, Cell]] = [
        ("judge", (one.judge,)),
        ("seed", (count(one.seed),)),
        ("requests", counted(one.requests)),
    ]
    blocks: list[Block] = [Facts(facts)]
    if any(curve.subject != "line" for curve in one.curves):
        blocks.append(_figures(one.curves))
    groups = _groups(one.curves)
    for number, alike in enumerate(groups[:_MOST_LINES]):
        blocks.append(_line(alike, f"{prefix}-line{number}"))
    if len(groups) > _MOST_LINES:
        blocks.append(Text(("Lines that are not shown: ", count(len(groups) - _MOST_LINES), ".")))
    small = [found for found in one.planes if len(found.alphas) <= _WIDEST_PLANE][:_MOST_PLANES]
    blocks += [_plane(found, f"{prefix}-plane{number}") for number, found in enumerate(small)]
    if len(one.planes) > len(small):
        blocks.append(
            Text(("Planes that are not shown: ", count(len(one.planes) - len(small)), "."))
        )
    if not (one.curves or one.planes):
        blocks.append(Text(("The file has no whole line and no whole plane yet.",)))
    return blocks


def _figures(curves: Sequence[Curve]) -> Table:
    """VISAGE and half-widths of each line."""
    rows = []
    along = [one for one in curves if one.subject != "line"]
    for one in along[: 2 * _MOST_LINES]:
        widths = [one.half_widths.get(name) for name in ("harmful", "over_refusal", "utility")]
        named = (f"{one.subject}, direction {one.direction}{_system(one.system)}",)
        visages = (some(one.visage), some(one.visage_by_phrases))
        rows.append((named, *visages, *map(_width, widths)))
    heads = (
        "model",
        "VISAGE",
        "VISAGE by phrases",
        "half-width: harmful refused",
        "harmless answered",
        "questions right",
    )
    return Table(titled("VISAGE and half-widths", len(rows), len(along)), heads, rows)


def _width(one: HalfWidth | None) -> Cell:
    if one is None:
        return ("none: 0 at alpha 0",)
    sides = ((one.left, one.open_left), (one.right, one.open_right))
    (left, left_end), (right, right_end) = (
        (real(side), " or more" if is_open else "") for side, is_open in sides
    )
    return ("left ", left, left_end, ", right ", right, right_end)


def _groups(curves: Sequence[Curve]) -> list[list[Curve]]:
    """Lines along the same direction, asked alike, base before patched."""
    found: dict[tuple[bool, str], list[Curve]] = {}
    for one in curves:
        found.setdefault((one.system, one.direction), []).append(one)
    return [*found.values()]


def _line(curves: Sequence[Curve], prefix: str) -> Subsection:
    first = curves[0]
    along = "From the base through the patch" if first.subject == "line" else (
        f"Along random direction {first.direction}"
    )  # fmt: skip
    figures = [
        _rates(curves, shown, f"{prefix}-{name}", title)
        for name, shown, title in (
            ("harmful", _HARMFUL, "Replies to harmful requests"),
            ("others", _OTHERS, "Replies to harmless requests and questions"),
        )
    ]
    return Subsection(f"{along}{_system(first.system)}", figures)


def _rates(curves: Sequence[Curve], shown: tuple[_Shown, ...], prefix: str, title: str) -> Figure:
    drawn = [shown[number] for number in _DRAWN[shown]]
    every = sorted({point.alpha for one in curves for point in one.points})
    alphas = every[:_MOST_POINTS]
    title = titled(title, len(alphas), len(every))
    named = [(one, "" if one.subject == "line" else f"{one.subject}: ") for one in curves]
    series = [
        Line(f"{before}{each.name}", _points(one, alphas, each, has_band=each is drawn[0]))
        for one, before in named
        for each in drawn
    ]
    through = curves[0].subject == "line"
    picture = lines(
        Caption(
            prefix, title, f"Shares of requests along the line. Bands: 95 % of {drawn[0].name}."
        ),
        series=[one for one in series if one.points],
        x_label="alpha: 0 is the base, 1 the patched model" if through else "alpha",
        y_label="share of requests",
        numbers="percent",
        references=(Reference(0.0, "base"), Reference(1.0, "patched")) if through else (),
    )
    by_alpha = [{point.alpha: point for point in one.points} for one in curves]
    rows = [
        (
            (real(alpha),),
            *(
                rate(each.of(points[alpha])) if alpha in points else ()
                for points in by_alpha
                for each in shown
            ),
        )
        for alpha in alphas
    ]
    heads = ("alpha", *(f"{before}{each.name}" for _, before in named for each in shown))
    return Figure(picture, Table(title, heads, rows))


def _points(
    curve: Curve, alphas: Sequence[float], shown: _Shown, has_band: bool
) -> list[LinePoint]:
    """The points of a line; bands of all would hide each other."""
    rates = [(point.alpha, shown.of(point)) for point in curve.points if point.alpha in alphas]
    return [
        LinePoint(alpha, one.value, *((one.low, one.high) if has_band else ()))
        for alpha, one in rates
        if one
    ]


def _plane(one: Plane, prefix: str) -> Subsection:
    columns, rows = (f"alpha of direction {name}" for name in one.directions)
    blocks: list[Block] = []
    for name, called in (("harmful", "harmful"), ("harmless", "harmless")):
        title = f"Mean margin of refusal of {called} requests"
        values = getattr(one, name)
        picture = plane(
            Caption(f"{prefix}-{name}", title, "Above 0 replies begin as refusals do."),
            alphas=one.alphas,
            values=values,
            x_label=columns,
            y_label=rows,
            legend="mean margin of refusal (log-odds)",
        )
        blocks.append(Figure(picture, _grid(title, one, values, real)))
    for name, called in (("refusing", "harmful"), ("over_refusing", "harmless")):
        title = f"Share of {called} requests with a margin above 0"
        values = getattr(one, name)
        picture = heat_map(
            Caption(
                f"{prefix}-{name.replace('_', '-')}", title, "Rows from the bottom: rising alpha."
            ),
            rows=[f"{alpha:.4g}" for alpha in reversed(one.alphas)],
            columns=[f"{alpha:.4g}" for alpha in one.alphas],
            values=list(reversed(values)),
            legend="share of requests",
            numbers="percent",
        )
        blocks.append(Figure(picture, _grid(title, one, values, percent)))
    title = f"Plane of directions {one.directions[0]} and {one.directions[1]}: {one.subject}"
    return Subsection(f"{title}{_system(one.system)}", blocks)


def _grid(
    title: str, one: Plane, values: Sequence[Sequence[float]], write: Callable[[float], Number]
) -> Table:
    heads = (f"alpha of direction {one.directions[1]}", *(f"{alpha:.4g}" for alpha in one.alphas))
    rows = [
        ((real(alpha),), *((write(value),) for value in row))
        for alpha, row in zip(one.alphas, values, strict=True)
    ]
    return Table(f"{title}; columns: alpha of direction {one.directions[0]}", heads, rows)


def _system(has_message: bool) -> str:
    return ", with the system message" if has_message else ""
