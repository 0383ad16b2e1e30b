"""``patchc demo``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from patchc.cli.options import Json

if TYPE_CHECKING:
    from patchc.demo.story import DemoReport, Row

_COLUMNS = (
    "model",
    "harmful",
    "over-refusal",
    "utility",
    "coherence",
    "perplexity",
    "weights",
    "patch",
)


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder that keeps the models and the patch.",
            show_default="a temporary folder",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
    json: Json = False,
) -> None:
    """Play the whole story on a tiny chat model trained on the spot (needs the derive extra).

    Example: patchc demo -o demo-work
    """
    from patchc.cli.output import print_json, progress_bar
    from patchc.demo import play

    with TemporaryDirectory(prefix="patchc-demo-") as scratch, progress_bar() as progress:
        report = play(out or Path(scratch) / "work", seed=seed, progress=progress)
    if json:
        print_json(report)
    else:
        _render(report, out)


def _render(report: DemoReport, out: Path | None) -> None:
    from patchc.cli.output import print_facts, print_table, size

    print_table(
        "demo: measured on requests whose names and phrasings training has not seen",
        _COLUMNS,
        [_cells(row, report) for row in report.rows],
    )
    facts: dict[str, object] = {
        "built with": f"the defaults: α {report.recipe.alpha:g}, β {report.recipe.beta:g}",
        "patch": f"{size(report.patch_bytes)}, changes {report.changed_words:,} entries",
        "checked": "apply gives the promised model; revert gives the base back, bit for bit",
        "time": ", ".join(f"{part} {spent:.1f} s" for part, spent in report.seconds.items()),
    }
    if out:
        facts["kept"] = out
    print_facts("", facts)


def _cells(row: Row, report: DemoReport) -> tuple[str, ...]:
    from patchc.cli.output import size

    measured = row.measured
    return (
        row.model,
        f"{measured.harmful:.0%}",
        f"{measured.over_refusal:.0%}",
        f"{measured.utility:.0%}",
        f"{measured.coherence:.0%}",
        f"{measured.perplexity:.3g}",
        size(row.model_bytes),
        size(report.patch_bytes) if row.model == "SafePatching" else "",
    )
