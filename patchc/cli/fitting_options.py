"""Options of the commands that fit scales."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any

from patchc.cli.options import option, parse_size
from patchc.errors import UsageError
from patchc.fitting.fit_options import DEFAULT_LIMITS, FitOptions, Limit, Sharing

fitting_option = partial(option, panel="Fitting")

Scales = Annotated[
    Sharing, fitting_option("What shares a scale: global, layer, module or tensor.", metavar="NAME")
]
Budget = Annotated[str, fitting_option("Most steps, or with m most minutes: 60, 10m.")]
Limits = Annotated[
    list[str] | None,
    fitting_option(
        "How far a figure may move: utility=-2 (points), perplexity=+2% (of the base's); may be "
        "repeated.",
        shown=" ".join(map(str, DEFAULT_LIMITS)),
    ),
]
BestEffort = Annotated[
    bool,
    fitting_option(
        "Write the best point even if it does not lower both rates within the limits.",
        "--best-effort",
    ),
]
Openings = Annotated[
    list[str] | None,
    fitting_option(
        "A text that refusals begin with; may be repeated.", shown="found in the base's replies"
    ),
]
MaxMemory = Annotated[
    int | None,
    option(
        "Memory that the process may take while it fits, and derives; a model that is too large is "
        "read layer by layer. A number of bytes, or one with kB, MB, GB, KiB, MiB or GiB.",
        shown="four fifths of what is free",
        parser=parse_size,
        metavar="SIZE",
    ),
]


def fit_options(
    scales: Sharing,
    budget: str,
    limits: list[str] | None,
    best_effort: bool,
    openings: list[str] | None,
    **others: Any,
) -> FitOptions:
    """Make the options of a fit from those above, and others by their fields' names.

    Raises:
        UsageError: one cannot be read, or is out of range.
    """
    steps, minutes = _parse_budget(budget)
    return FitOptions(
        sharing=scales,
        steps=steps,
        minutes=minutes,
        limits=tuple(map(Limit.parse, limits)) if limits else DEFAULT_LIMITS,
        best_effort=best_effort,
        openings=tuple(openings or ()),
        **others,
    )


def _parse_budget(text: str) -> tuple[int, float | None]:
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(m?)\s*", text)
    if match is None or (not match[2] and "." in match[1]):
        raise UsageError(
            f"--budget is {text!r:.80}; give steps (60) or minutes (10m), with nine digits at most"
        )
    if match[2]:
        return 1_000_000, float(match[1])
    return int(match[1]), None
