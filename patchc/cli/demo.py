"""``patchc demo``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from patchc.cli.options import Json

if TYPE_CHECKING:
    from patchc.demo.story import DemoReport


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
    """Fix a tiny chat model that is trained on the spot (needs the derive extra).

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
    from dataclasses import replace

    from patchc.cli.fix_tables import render_fix
    from patchc.cli.output import print_facts, size

    fixed = report.fix
    # A temporary folder is gone by now, so its files are not named.
    render_fix(fixed if out else replace(fixed, out=None))
    print_facts(
        f"demo, seed {fixed.seed}",
        {
            "patch": f"{size(fixed.patch_bytes)} for {size(fixed.model_bytes)} of weights, "
            f"changes {report.changed_words:,} entries",
            "checked": "apply gives the promised model; revert gives the base back, bit for bit",
            "time": ", ".join(f"{part} {spent:.1f} s" for part, spent in report.seconds.items()),
            "kept": out or "nothing; -o FOLDER keeps the models, the requests and the patch",
        },
    )
