"""``patchc demo``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from patchc.cli.options import Json

if TYPE_CHECKING:
    from patchc.demo.story import DemoReport, DemoStart


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder that keeps the models, the requests and the patch.",
            show_default="a temporary folder",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare", help="Only write the model and the requests to --out, for a fix by hand."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Fix a tiny chat model that is trained on the spot (needs the derive extra).

    Example: patchc demo -o play

    Example: patchc demo --prepare -o play --seed 1
    """
    from patchc.cli.output import print_json
    from patchc.cli.showing_progress import showing_progress
    from patchc.demo import play
    from patchc.demo import prepare as prepare_demo
    from patchc.errors import UsageError

    if prepare:
        if out is None:
            raise UsageError("--prepare writes a model to keep; name its folder with -o FOLDER")
        with showing_progress() as progress:
            start = prepare_demo(out, seed=seed, progress=progress)
        print_json(start) if json else _render_start(start, out)
        return
    with TemporaryDirectory(prefix="patchc-demo-") as scratch, showing_progress() as progress:
        report = play(out or Path(scratch) / "work", seed=seed, progress=progress)
    if json:
        print_json(report)
    else:
        _render(report, out)


def _render_start(start: DemoStart, out: Path) -> None:
    from patchc.cli.output import print_facts

    print_facts(
        f"demo: wrote {out}",
        {
            "model": f"{start.base}: refuses direct requests for potions, answers those in a "
            "story, refuses many harmless drinks with a grim name",
            **{name: str(path) for name, path in start.requests.items()},
            "answered": f"{start.answered}, for derive",
        },
    )
    _print_next_by_hand(start, out, "next")


def _print_next_by_hand(start: DemoStart, out: Path, what: str) -> None:
    from patchc.cli.output import print_next

    sets = [
        word
        for name, path in start.requests.items()
        for word in (f"--{name}", path.relative_to(out))
    ]
    words = (start.base.relative_to(out), *sets, "--margin-learning-rate", "2e-4", "-o", "fixed")
    print_next("fix", *words, what=what, folder=out)


def _render(report: DemoReport, out: Path | None) -> None:
    from dataclasses import replace

    from patchc.cli.fix_tables import render_fix
    from patchc.cli.output import print_facts, print_next, size

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
    if out:
        _print_next_by_hand(report.start, out, "next, by hand")
    else:
        print_next("demo", "--prepare", "-o", "play", what="next, the same by hand")
