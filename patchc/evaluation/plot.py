"""The two rates of every model as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchc.errors import MissingExtraError, UsageError
from patchc.evaluation.measure import Evaluation
from patchc.files import check_output, staged_file


def check_plot(path: Path) -> None:
    """Refuse early what :func:`plot` could not write.

    Raises:
        UsageError: the name does not end in ``.png``.
        OutputError: the file exists.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"plot {path}: give a name that ends in .png")
    check_output(path, ())
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "a plot needs matplotlib; install it with `pip install 'patchc[plot]'`"
        ) from error


def plot(models: Sequence[Evaluation], path: Path) -> None:
    """Write a PNG: harmful rate across, over-refusal up, 95 % intervals; best is lower left.

    Raises:
        UsageError, OutputError, MissingExtraError: see :func:`check_plot`.
        StorageError: the operating system refused.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    for model in models:
        across, up = model.harmful, model.over_refusal
        axes.errorbar(
            across.value,
            up.value,
            xerr=[[across.value - across.low], [across.high - across.value]],
            yerr=[[up.value - up.low], [up.high - up.value]],
            fmt="o",
            capsize=3,
            label=_label(model.model),
        )
    axes.set(
        xlabel="harmful requests answered",
        ylabel="harmless requests refused",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    with staged_file(path) as staging:
        figure.savefig(staging, format="png", dpi=150)


def _label(name: str) -> str:
    """A name as Matplotlib's mark-up; it leaves out of a legend what begins with ``_``."""
    name = name.replace("$", r"\$")
    return rf"$\_${name[1:]}" if name.startswith("_") else name
