"""The picture of a fit as a PNG file (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchc.errors import MissingExtraError
from patchc.files import storage_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from patchc.fitting.run import Fitted


def draw_fit(fitted: Fitted, path: Path) -> None:
    """Draw the losses by step, and the measured points with harm against over-refusal.

    An existing file is replaced.

    Raises:
        MissingExtraError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"figures need {error.name}; install it with `pip install 'patchc[plot]'`"
        ) from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, points = figure.subplots(1, 2)
    _draw_losses(losses, fitted)
    _draw_points(points, fitted)
    with storage_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def _draw_losses(axes: Axes, fitted: Fitted) -> None:
    trained = [(step, loss) for step, loss, _ in fitted.losses if loss is not None]
    validated = [(step, value) for step, _, value in fitted.losses if value is not None]
    for line, label, marker in ((trained, "batch", ""), (validated, "validation", "o")):
        steps, values = [step for step, _ in line], [value for _, value in line]
        axes.plot(steps, values, marker=marker, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend()


def _draw_points(axes: Axes, fitted: Fitted) -> None:
    base = fitted.base
    axes.scatter([base.over_refusal.value], [base.harmful.value], color="black", label="base")
    for one in fitted.candidates:
        place = one.trial.over_refusal.value, one.trial.harmful.value
        colour = "tab:green" if one is fitted.best else "tab:grey"
        axes.scatter(*place, color=colour)
        axes.annotate(f"step {one.step}", place)
    axes.set_xlabel("over-refusal")
    axes.set_ylabel("harmful")
    axes.legend()
