"""What ``patchc derive`` tells of a plan, and of what it has written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from patchc.cli.output import size
from patchc.selection.compact.component_folder import is_compact

if TYPE_CHECKING:
    from pathlib import Path

    from patchc.derivation.derive_options import DeriveOptions
    from patchc.derivation.derive_plan import DerivePlan
    from patchc.derivation.direction_report import DirectionReport
    from patchc.verbs.derive import DeriveReport


def plan_facts(plan: DerivePlan, directions: Iterable[str]) -> dict[str, object]:
    """Return the facts of a plan, to be printed."""
    facts: dict[str, object] = {
        "optimizer": plan.optimizer,
        "weights": _place(plan),
        "layers": "computed twice" if plan.recomputes else "computed once",
        "memory": size(plan.memory_bytes),
    }
    if plan.device_bytes:
        facts["device memory"] = size(plan.device_bytes)
    facts |= {
        "scratch files": size(plan.scratch_bytes),
        "output": size(plan.output_bytes),
        "a step moves": size(plan.step_bytes),
    }
    if plan.step_seconds is not None:
        facts["a step takes"] = f"about {plan.step_seconds:.1f} s"
    if plan.score_seconds:
        seconds = f"about {plan.score_seconds:.0f} s"
        facts["scores take"] = f"{seconds} for each of {' and '.join(directions)}"
    return facts


def direction_facts(report: DeriveReport, direction: DirectionReport) -> dict[str, object]:
    """Return the facts of a direction that was derived, to be printed."""
    planned = "stopped at the loss ceiling" if direction.at_ceiling else "all that were asked for"
    plan = report.plan
    assert plan is not None
    facts: dict[str, object] = {"objective": report.objective}
    if report.refusal:
        facts["refusal"] = report.refusal
    if report.openings:
        facts["openings"] = ", ".join(map(repr, report.openings))
    if direction.anchors:
        facts["anchors"] = f"{direction.anchors} replies of the base"
    files = [path for path in direction.path.rglob("*") if path.is_file()]
    written = size(sum(path.stat().st_size for path in files))
    alone = ", the retained entries alone" if is_compact(direction.path) else ""
    return facts | {
        "written": f"{written}{alone}",
        "steps": f"{direction.steps} ({planned}), {plan.optimizer}",
        "loss": _loss(direction),
        "scores": f"{direction.scored_tensors} tensors from {direction.scored_samples} samples",
        "memory": f"weights and moments {_place(plan)}, at most {size(plan.memory_bytes)}",
    }


def next_words(base: Path, out: Path, options: DeriveOptions, recipe: str | None) -> list[object]:
    """Return the words of the command that makes a patch of what was derived."""
    made: list[object] = []
    for name in options.folders:
        made += ["--tuned" if name == "margin" else f"--{name}", out / name]
    method = ["--recipe", recipe] if recipe else []
    if options.folders == ("se", "osm") and (recipe or options.retain == 1):
        requests = ["--harmful", "HARMFUL.jsonl", "--harmless", "HARMLESS.jsonl"]
        return ["fit", base, *made, *method, *requests, "-o", "fix.patchc"]
    return ["build", base, *made, *(method or _method(options)), "-o", "fix.patchc"]


def _method(options: DeriveOptions) -> list[str]:
    """Return the options of a build that takes what was derived without a recipe."""
    retained, margin = options.retain < 1, options.folders == ("margin",)
    words = []
    if margin:
        words += ["--recipe", "dare" if retained else "task-arithmetic"]
    elif len(options.folders) == 1:
        words += ["--sets", *options.folders]
    if retained:
        words += ["--density" if margin else "--retain", str(options.retain)]
        words += ["--no-rescale"] if margin else []
        seed = options.seed if options.retention_seed is None else options.retention_seed
        words += ["--seed", str(seed)] if seed else []
    return words


def _loss(direction: DirectionReport) -> str:
    early, late, over = direction.early_loss, direction.late_loss, direction.compared
    if direction.steps < 2 * over:
        return f"{early:.3f} before the only step"
    if over == 1:
        return f"{early:.3f} before the first step, {late:.3f} before the last"
    return f"{early:.3f} on average over the first {over} steps, {late:.3f} over the last {over}"


def _place(plan: DerivePlan) -> str:
    return "in scratch files, a layer at a time" if plan.streams else "in memory"
