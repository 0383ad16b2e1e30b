"""The parameters of a fit, which learns the scales of a recipe on requests.

They are validated and need no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from patchc.errors import UsageError
from patchc.recipe import checks

Sharing = Literal["global", "layer", "module", "tensor"]
SHARINGS: tuple[Sharing, ...] = get_args(Sharing)

FEWEST = 16
"""The fewest requests of a set that can be fitted on."""

LIMITED = ("utility", "perplexity", "degenerate", "misanswered")
"""The figures that can have a limit; a fit lowers the others, harm and over-refusal."""

_LIMIT = re.compile(r"([a-z]+)=([+-]?\d+(?:\.\d+)?)(%?)")


@dataclass(frozen=True)
class Limit:
    """How far a figure may move from the base's.

    Attributes:
        name: one of :data:`LIMITED`.
        change: the largest change, in points (hundredths) of a rate, or if ``relative``, in per
            cent of the base's figure. Negative for a figure that must not fall, positive for
            one that must not rise.
        relative: whether the change is a share of the base's figure.

    Raises:
        UsageError: the figure can have no limit, or the change is no number or of the wrong sign.
    """

    name: str
    change: float
    relative: bool = False

    def __post_init__(self) -> None:
        checks.choice("limit", self.name, LIMITED)
        checks.truth(f"limit {self.name}: relative", self.relative)
        if not math.isfinite(checks.number(f"limit {self.name}: change", self.change)):
            raise UsageError(f"limit {self.name}: change is {self.change}; it must be finite")
        if self.name == "perplexity" and not self.relative:
            raise UsageError("a limit on perplexity is relative; write perplexity=+2%")
        falls = self.name == "utility"
        if self.change > 0 if falls else self.change < 0:
            raise UsageError(
                f"limit {self}: {self.name} must not {'fall' if falls else 'rise'} too far, so the "
                f"change is {'negative' if falls else 'positive'}, or 0"
            )

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Parse text such as ``utility=-2`` (points) or ``perplexity=+2%`` (relative).

        Raises:
            UsageError: the text is no limit.
        """
        match = _LIMIT.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                f"limit {text!r:.80}; write utility=-2 for points, or perplexity=+2% for a share "
                f"of the base's figure; limits exist for {', '.join(LIMITED)}"
            )
        return cls(match[1], float(match[2]), bool(match[3]))

    def __str__(self) -> str:
        return f"{self.name}={self.change:+g}{'%' if self.relative else ''}"

    def allows(self, before: float, after: float) -> bool:
        """Return whether a figure may go from ``before`` to ``after``."""
        scale = before / 100 if self.relative else 0.01
        room = abs(self.change) * scale + 1e-12
        return after >= before - room if self.name == "utility" else after <= before + room


def unmeasured(limits: Sequence[Limit], utility: bool, reference: bool) -> tuple[Limit, ...]:
    """Find the limits whose figure is not measured: there are no questions or reference text.

    Raises:
        UsageError: there are such limits, and they are not the defaults.
    """
    missing = {"utility": utility, "perplexity": reference}
    found = tuple(limit for limit in limits if not missing.get(limit.name, True))
    if found and tuple(limits) != DEFAULT_LIMITS:
        given = "utility questions" if found[0].name == "utility" else "a reference text"
        raise UsageError(f"limit {found[0]} needs {given}; give them, or leave the limit out")
    return found


_ENDS = ("steps", "minutes", "patience", "candidates", "limits", "best_effort")
"""Options that end a fit, or choose among its points."""

DEFAULT_LIMITS = (Limit("utility", -2.0), Limit("perplexity", 2.0, relative=True))


@dataclass(frozen=True)
class FitOptions:
    """How scales are fitted.

    Attributes:
        sharing: what shares a scale: all tensors ("global", as in the paper), the tensors of a
            "layer", those of one kind of "module", or nothing ("tensor").
        steps: most Adam steps; above 0.
        minutes: ends the steps after this time, measured over all runs; None sets no end.
        batch_size: requests in a step, half of them harmful; even.
        learning_rate: of Adam, as a share of each component's scale at the start.
        target: the log-odds of refusing (or of not refusing) at which a request counts as right
            and is left alone.
        anchor_weight: weight of the KL divergence from the base on utility and harmless requests.
        answer_weight: weight of the loss of reference answers to harmless requests, if any.
        shrinkage: weight of the applied deltas' squared norm, as a multiple of that at the start.
        validation: share of the requests that the steps do not see, in (0, 1).
        patience: the steps end after this many validations without a better one.
        candidates: points that are measured by generation, the start among them.
        seed: of batches and of the division into steps and validation.
        limits: how far other figures may move.
        best_effort: give the best candidate even if it does not lower both rates within the limits.
        openings: the first words of refusals; empty finds them in the base's replies.

    Raises:
        UsageError: a parameter is of the wrong type or out of range.
    """

    sharing: Sharing = "tensor"
    steps: int = 20
    minutes: float | None = None
    batch_size: int = 16
    learning_rate: float = 0.05
    target: float = 4.0
    anchor_weight: float = 10.0
    answer_weight: float = 0.5
    shrinkage: float = 0.02
    validation: float = 0.25
    patience: int = 4
    candidates: int = 3
    seed: int = 0
    limits: tuple[Limit, ...] = DEFAULT_LIMITS
    best_effort: bool = False
    openings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.choice("sharing", self.sharing, SHARINGS)
        for name in ("steps", "patience", "candidates"):
            checks.count(name, getattr(self, name))
        if type(self.batch_size) is not int or self.batch_size < 2 or self.batch_size % 2:
            raise UsageError(
                f"batch_size is {self.batch_size!r:.80}; it must be an even number of at least 2, "
                "half of them harmful requests"
            )
        checks.seed("seed", self.seed)
        for name in ("learning_rate", "target"):
            checks.positive(name, getattr(self, name))
        for name in ("anchor_weight", "answer_weight", "shrinkage"):
            checks.positive(name, getattr(self, name), or_zero=True)
        for opening in checks.texts("openings", self.openings):
            checks.text("openings", opening)
        if not isinstance(self.limits, list | tuple) or not all(
            isinstance(limit, Limit) for limit in self.limits
        ):
            raise UsageError(
                f"limits is {self.limits!r:.80}; it must be a list of Limit, such as "
                "Limit.parse('utility=-2')"
            )
        checks.truth("best_effort", self.best_effort)
        if self.minutes is not None:
            checks.positive("minutes", self.minutes)
        if not 0.0 < checks.number("validation", self.validation) < 1.0:
            raise UsageError(f"validation is {self.validation}; it must lie between 0 and 1")

    def course(self) -> dict[str, Any]:
        """Return the options that steps depend on, without those that only end a fit, as JSON."""
        return {name: value for name, value in self.to_json().items() if name not in _ENDS}

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return {**asdict(self), "limits": [str(limit) for limit in self.limits]}
