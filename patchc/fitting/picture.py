"""The picture of a fit as a PNG file (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchc.errors import import_errors
from patchc.files import staged_file

if TYPE_CHECKING:
    from patchc.fitting.fitted import Fitted


def draw_fit(fitted: Fitted, path: Path) -> None:
    """Draw the losses by step, and the measured points with harm against over-refusal.

    An existing file is replaced.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    with import_errors("a figure", "plot"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, points = figure.subplots(1, 2)
    trained = [(step, loss) for step, loss, _ in fitted.losses if loss is not None]
    validated = [(step, value) for step, _, value in fitted.losses if value is not None]
    for line, label, marker in ((trained, "batch", ""), (validated, "validation", "o")):
        steps, values = [step for step, _ in line], [value for _, value in line]
        losses.plot(steps, values, marker=marker, label=label)
    losses.set(xlabel="step", ylabel="loss")
    losses.legend()
    base = fitted.base
    points.scatter([base.over_refusal.value], [base.harmful.value], color="black", label="base")
    for one in fitted.candidates:
        place = one.trial.over_refusal.value, one.trial.harmful.value
        points.scatter(*place, color="tab:green" if one is fitted.best else "tab:grey")
        points.annotate(f"step {one.step}", place)
    points.set(xlabel="over-refusal", ylabel="harmful")
    points.legend()
    with staged_file(path, replace=True) as staging:
        figure.savefig(staging, format="png", dpi=120)
