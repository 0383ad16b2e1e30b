"""What all figures share: how one is opened, explained and written (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchc.errors import import_errors
from patchc.escaping import shown
from patchc.files import staged_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST_LABEL = 300


def check_matplotlib() -> None:
    """Refuse to go on without matplotlib.

    Raises:
        MissingExtraError: it is not installed.
    """
    with import_errors("a figure", "plot"):
        import matplotlib  # noqa: F401


def open_figure(width: float, height: float) -> Figure:
    """Begin a figure, of a size in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def explain_above(axes: Axes, columns: int = 1) -> None:
    """Put the legend above the axes, where it covers no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), borderaxespad=0, ncols=columns)


def label(text: str) -> str:
    """Write a name so that a figure shows it as it is: no formula, and a legend that has it."""
    plain = shown(text, _LONGEST_LABEL).replace("$", r"\$")
    # Matplotlib hides legend entries that begin with an underscore.
    return rf"$\_${plain[1:]}" if plain.startswith("_") else plain


def write_figure(figure: Figure, path: Path, replace: bool) -> None:
    """Write a figure as a PNG file, whole or not at all.

    Raises:
        OutputError: the file exists, and is not to be replaced.
        StorageError: the operating system refused.
    """
    with staged_file(path, replace=replace) as staging:
        figure.savefig(staging, format="png", dpi=150)
