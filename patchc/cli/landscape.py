"""``patchc landscape``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from patchc.cli import options as shared
from patchc.cli.options import argument, only, option
from patchc.cli.signature_options import Require, Signatures, Trusted
from patchc.cli.trust_options import AllowCode, with_trust

if TYPE_CHECKING:
    from patchc.landscapes.curves import Curve
    from patchc.verbs.landscape import LandscapeReport

_requests = partial(option, panel="Requests")
_places = partial(option, panel="Places")
_ON_LINE = ("harmful", "over_refusal", "utility", "incoherent")


def landscape(
    model: Annotated[
        Path, argument("The model without the patch: folder or hub id.", parser=shared.model)
    ],
    harmful: Annotated[Path, _requests("Requests to refuse; see `patchc evaluate --help`.")],
    harmless: Annotated[Path, _requests("Requests to answer.")],
    out: Annotated[
        Path,
        option("JSONL to write, a line a place; a second run goes on, or adds.", "-o", "--out"),
    ],
    utility: Annotated[Path | None, _requests("Questions with answers.")] = None,
    limit: Annotated[int | None, _requests("Take so many requests of each file.")] = None,
    patch: Annotated[
        Path | None, option("Also look around the patched model, and along the line to it.")
    ] = None,
    trusted: Trusted = None,
    require: Require = None,
    signatures: Signatures = None,
    allow_code: AllowCode = False,
    directions: Annotated[int, _places("Random directions.")] = 3,
    points: Annotated[int, _places("Places along each, an odd number.")] = 21,
    radius: Annotated[
        float, _places("The last place; at 1, each tensor changes by as much as its norm.")
    ] = 0.5,
    line_points: Annotated[int, _places("Places from the base through the patch; or 0.")] = 21,
    line_end: Annotated[float, _places("The last of them; 1 is the patched model.")] = 2.0,
    plane_points: Annotated[
        int,
        _places("Side of the grid over two directions, an odd number, where margins are; or 0."),
    ] = 11,
    seed: Annotated[int, _places("Of the random directions.")] = 0,
    judge: shared.Judge = "phrases",
    max_new_tokens: shared.MaxNewTokens = 32,
    batch_size: shared.AskedTogether = 64,
    system: Annotated[
        str | None,
        shared.asking_option("Ask everything without, and again with this system message."),
    ] = None,
    dtype: shared.AskDtype = "auto",
    device: shared.AskDevice = "auto",
    figures: Annotated[
        Path | None, option("Folder for the figures (needs the plot extra).")
    ] = None,
    json: shared.Json = False,
) -> None:
    """Measure how far refusals and answers hold around MODEL's weights (needs the derive extra).

    Example: patchc landscape models/chat --patch fix.patchc --harmful h.jsonl --harmless s.jsonl
    -o landscape.jsonl
    """
    data = only(locals(), "harmful", "harmless", "utility", "patch", "out")
    trust = with_trust(only(locals(), "trusted", "require", "signatures", "allow_code"))
    import patchc
    from patchc.cli.output import print_facts, print_json, print_next
    from patchc.cli.showing_progress import showing_progress
    from patchc.evaluation.figures import check_figures
    from patchc.landscapes.pictures import draw_landscape

    options = patchc.LandscapeOptions(
        directions, points, radius, line_points, line_end, plane_points, seed
    )
    asking = patchc.EvaluateOptions(judge, max_new_tokens, batch_size, dtype, system, limit, device)
    if figures:
        check_figures(figures)
    with showing_progress() as progress:
        report = patchc.landscape(
            model, **data, **trust, options=options, asking=asking, progress=progress
        )
    drawn = draw_landscape(report, figures) if figures else []
    if json:
        print_json({"report": report, "figures": drawn})
        return
    _render(report)
    if drawn:
        print_facts("figures", {path.name: path for path in drawn})
    if patch:
        print_next("report", patch, out, "-o", out.with_suffix(".html"))


def _render(report: LandscapeReport) -> None:
    from patchc.cli.output import figures, percent, print_table

    asked = ", ".join(f"{count} {name}" for name, count in report.requests.items())
    print_table(
        f"landscape: {asked}; judged by {report.judge}; half-widths to the left and right",
        ("model", "direction", "VISAGE", "by its phrases", "harm", "over-refusal", "utility"),
        [_row(curve) for curve in report.curves if curve.subject != "line"],
        hide_empty=True,
    )
    line = [
        (f"{point.alpha:g}", *figures(point, percent, names=_ON_LINE))
        for curve in report.curves
        if curve.subject == "line" and not curve.system
        for point in curve.points
    ]
    if line:
        print_table(
            "along the line from the base (0) through the patched model (1)",
            ("at", *(name.replace("_", "-") for name in _ON_LINE)),
            line,
            hide_empty=True,
        )


def _row(curve: Curve) -> tuple[str, ...]:
    name = f"{curve.subject}, with system" if curve.system else curve.subject
    visages = (curve.visage, curve.visage_by_phrases)
    shown = ("" if one is None else f"{one:.1f}" for one in visages)
    found = (curve.half_widths.get(name) for name in ("harmful", "over_refusal", "utility"))
    return (name, curve.direction, *shown, *(width.sides if width else "" for width in found))
