"""From the lines of a landscape file to curves, planes and their figures; needs no torch."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchc.errors import EvaluateError
from patchc.evaluation.journal import is_header
from patchc.evaluation.rates import Rate, rate
from patchc.evaluation.records import read_text
from patchc.evaluation.requests import SetName
from patchc.evaluation.verdicts import OUTCOMES, Outcome
from patchc.landscapes.curves import (
    Curve,
    CurvePoint,
    HalfWidth,
    Landscape,
    Objective,
    Plane,
    Subject,
    half_width,
    is_regular,
    visage,
)
from patchc.landscapes.lines import (
    JUDGED_SETS,
    LANDSCAPE,
    Line,
    MarginLine,
    Reply,
    ReplyLine,
    decode_line,
    key_of,
)
from patchc.landscapes.phrases import has_refusal_phrase
from patchc.landscapes.place import PATCH
from patchc.strict_json import UNFIT, parse_json

_SIDES: dict[float, Subject] = {0.0: "base", 1.0: "patched"}
_GOOD: dict[Objective, Callable[[CurvePoint], Rate | None]] = {
    "harmful": lambda point: point.refused,
    "over_refusal": lambda point: point.answered,
    "utility": lambda point: point.utility,
}


def find_landscape(inputs: Mapping[str, Any], lines: Iterable[Line]) -> Landscape:
    """Count the lines of a file into curves and planes.

    Args:
        inputs: what the file's first line states.
        lines: its other lines.
    """
    given = list(lines)
    return Landscape(
        base_digest=inputs["base"],
        patch_root=inputs["patch"],
        judge=inputs["judge"],
        seed=inputs["seed"],
        requests=inputs["counts"],
        curves=tuple(_find_curves([one for one in given if isinstance(one, ReplyLine)])),
        planes=tuple(_find_planes([one for one in given if isinstance(one, MarginLine)])),
    )


def read_landscape(path: Path) -> Landscape:
    """Read a landscape file, finished or not, without changing it.

    A last line that a kill cut short is left out.

    Raises:
        EvaluateError: it cannot be read, or is no landscape file; names the line.
    """
    whole, _, _ = read_text(path, "utf-8").rpartition("\n")
    first, *rest = whole.split("\n")
    with _line_told(path, 1):
        header = parse_json(first)
        if not is_header(header, LANDSCAPE):
            raise ValueError("it does not begin as one")
        inputs = _checked(header["inputs"])
    lines: dict[str, Line] = {}
    for number, text in enumerate(rest, start=2):
        with _line_told(path, number):
            line = decode_line(parse_json(text), inputs["counts"])
        lines[json.dumps(key_of(line), sort_keys=True)] = line
    return find_landscape(inputs, lines.values())


@contextmanager
def _line_told(path: Path, number: int) -> Iterator[None]:
    try:
        yield
    except UNFIT as error:
        raise EvaluateError(
            f"{path}:{number}: not a line of landscape results ({type(error).__name__}: "
            f"{error!s:.200}); name a file that `patchc landscape` wrote"
        ) from error


def _checked(inputs: Any) -> Mapping[str, Any]:
    root, counts, seed = inputs["patch"], inputs["counts"], inputs["seed"]
    texts = [inputs["base"], inputs["judge"], *([] if root is None else [root])]
    if not all(type(text) is str for text in texts) or type(seed) is not int:
        raise TypeError("base, patch, judge or seed is of another kind")
    if not {*JUDGED_SETS} <= {*counts} <= {*OUTCOMES}:
        raise ValueError("it counts other sets of requests")
    if not all(type(count) is int and count > 0 for count in counts.values()):
        raise ValueError("a set has no requests")
    return {"base": texts[0], "patch": root, "judge": texts[1], "seed": seed, "counts": counts}


def _find_curves(lines: list[ReplyLine]) -> list[Curve]:
    found: dict[tuple[bool, Subject, str], dict[float, CurvePoint]] = {}
    names = sorted({name for one in lines for name in one.place.moves}, key=_order)

    def add(curve: tuple[bool, Subject, str], line: ReplyLine, alpha: float) -> None:
        found.setdefault(curve, {})[alpha] = _point(alpha, line)

    for line in lines:
        moves, side = dict(line.place.moves), _SIDES.get(line.place.patch)
        if not moves:
            add((line.system, "line", PATCH), line, line.place.patch)
        if side is not None and len(moves) < 2:
            for name in moves or names:
                add((line.system, side, name), line, moves.get(name, 0.0))
    curves = []
    subjects: tuple[Subject, ...] = ("base", "patched", "line")
    for system in (False, True):
        for subject in subjects:
            for name in (PATCH,) if subject == "line" else names:
                points = found.get((system, subject, name), {})
                if len(points) > 2:
                    ordered = tuple(points[alpha] for alpha in sorted(points))
                    curves.append(_curve(subject, name, system, ordered))
    return curves


def _curve(subject: Subject, name: str, system: bool, points: tuple[CurvePoint, ...]) -> Curve:
    if subject == "line":
        return Curve(subject, name, system, points)
    widths: dict[Objective, HalfWidth | None] = {
        objective: half_width(points, rate_of) for objective, rate_of in _GOOD.items()
    }
    curve = Curve(subject, name, system, points, half_widths=widths)
    if not is_regular([one.alpha for one in points]):
        return curve
    return replace(
        curve,
        visage=visage([100 * one.unrefused.value for one in points]),
        visage_by_phrases=visage([100 * one.without_phrase.value for one in points]),
    )


def _point(alpha: float, line: ReplyLine) -> CurvePoint:
    harmful, harmless = line.replies["harmful"], line.replies["harmless"]
    questions = line.replies.get("utility")

    def share(replies: Iterable[Reply], *outcomes: Outcome) -> Rate:
        return rate(one.coherent and one.outcome in outcomes for one in replies)

    return CurvePoint(
        alpha,
        refused=share(harmful, "refused"),
        harmful=share(harmful, "answered", "misanswered"),
        incoherent=rate(not one.coherent for one in harmful),
        over_refusal=share(harmless, "refused"),
        answered=share(harmless, "answered"),
        incoherent_harmless=rate(not one.coherent for one in harmless),
        utility=share(questions, "right") if questions else None,
        unrefused=rate(one.outcome != "refused" for one in harmful),
        without_phrase=rate(not has_refusal_phrase(one.text) for one in harmful),
    )


def _find_planes(lines: list[MarginLine]) -> list[Plane]:
    grids: dict[tuple[bool, Subject], dict[tuple[float, float], MarginLine]] = {}
    names = sorted({name for one in lines for name in one.place.moves}, key=_order)[:2]
    for line in lines:
        moves, side = line.place.moves, _SIDES.get(line.place.patch)
        if side is not None and len(names) == 2 and set(moves) <= set(names):
            at = moves.get(names[0], 0.0), moves.get(names[1], 0.0)
            grids.setdefault((line.system, side), {})[at] = line
    planes = []
    for (system, side), grid in sorted(grids.items()):
        alphas = _whole_grid(grid)
        if alphas:
            planes.append(_plane(side, (names[0], names[1]), system, tuple(alphas), grid))
    return planes


def _whole_grid(places: Iterable[tuple[float, float]]) -> Sequence[float]:
    """Return the coordinates of the finest whole grid; there may be one of a run with others.

    Each of n × n is in at least n places, and those of another grid alone are in more or in fewer.
    There may be none while a finer grid is unfinished.
    """
    known = set(places)
    counts = Counter(x for x, _ in known)
    for least in sorted({*counts.values()}):
        alphas = sorted(x for x, count in counts.items() if count >= least)
        is_grid = len(alphas) > 2 and is_regular(alphas)
        if is_grid and all((x, y) in known for y in alphas for x in alphas):
            return alphas
    return ()


def _plane(
    subject: Subject,
    directions: tuple[str, str],
    system: bool,
    alphas: tuple[float, ...],
    grid: Mapping[tuple[float, float], MarginLine],
) -> Plane:
    def each(name: SetName, show: Callable[[float], float]) -> tuple[tuple[float, ...], ...]:
        def mean(values: tuple[float, ...]) -> float:
            return math.fsum(map(show, values)) / len(values)

        return tuple(tuple(mean(grid[x, y].margins[name]) for x in alphas) for y in alphas)

    def itself(margin: float) -> float:
        return margin

    def above(margin: float) -> float:
        return float(margin > 0)

    return Plane(
        subject,
        directions,
        system,
        alphas,
        harmful=each("harmful", itself),
        harmless=each("harmless", itself),
        refusing=each("harmful", above),
        over_refusing=each("harmless", above),
    )


def _order(name: str) -> tuple[int, str]:
    """Order directions by their numbers."""
    return len(name), name
