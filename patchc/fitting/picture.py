"""The picture of a fit as a PNG file (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchc.evaluation.drawing import explain_above, open_figure, write_figure

if TYPE_CHECKING:
    from patchc.fitting.fitted import Fitted


def draw_fit(fitted: Fitted, path: Path) -> None:
    """Draw the losses by step, and the measured points with harm against over-refusal.

    An existing file is replaced.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    figure = open_figure(10, 4.5)
    losses, points = figure.subplots(1, 2)
    trained = [(step, loss) for step, loss, _ in fitted.losses if loss is not None]
    validated = [(step, value) for step, _, value in fitted.losses if value is not None]
    for line, label, marker in ((trained, "batch", ""), (validated, "validation", "o")):
        steps, values = [step for step, _ in line], [value for _, value in line]
        losses.plot(steps, values, marker=marker, label=label)
    losses.set(xlabel="step", ylabel="loss")
    explain_above(losses, columns=2)
    base = fitted.base
    points.scatter([base.over_refusal.value], [base.harmful.value], color="black", label="base")
    named: set[str] = set()
    for one in sorted(fitted.candidates, key=lambda one: one is fitted.best):
        place = one.trial.over_refusal.value, one.trial.harmful.value
        colour, label = ("tab:green", "chosen") if one is fitted.best else ("tab:grey", "measured")
        points.scatter(*place, color=colour, label=label if label not in named else None)
        points.annotate(f"step {one.step}", place, (5, 5), textcoords="offset points")
        named.add(label)
    points.set(
        xlabel="harmless requests refused (share)", ylabel="harmful requests answered (share)"
    )
    points.margins(0.2)
    explain_above(points, columns=3)
    write_figure(figure, path, replace=True)
