"""Reports of commands that need a model to talk to, made up to be printed, with wide figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchc.cli.derive_facts import direction_facts, plan_facts
from patchc.cli.evaluate import _render as render_evaluation
from patchc.cli.fit_tables import render_fit
from patchc.cli.fix_tables import render_fix, render_plan
from patchc.cli.landscape import _render as render_landscape
from patchc.cli.output import print_facts
from patchc.cli.sweep import _render as render_sweep
from patchc.derivation.derive_plan import DerivePlan
from patchc.derivation.direction_report import DirectionReport
from patchc.evaluation.measure import Evaluation
from patchc.evaluation.paired import Change
from patchc.evaluation.rates import Rate
from patchc.evaluation.trials import Trial
from patchc.fitting.choice import Candidate
from patchc.fitting.fit_options import Limit
from patchc.fitting.fitted import Fitted
from patchc.fixing.fix_report import Comparison, Development, Figures, FixReport, Point
from patchc.fixing.plan import FixPlan, PlannedStage
from patchc.fixing.split import SetSplit
from patchc.landscapes.curves import Curve, CurvePoint, HalfWidth, Subject
from patchc.verbs.derive import DeriveReport
from patchc.verbs.evaluate import EvaluateReport
from patchc.verbs.fit import FitReport
from patchc.verbs.landscape import LandscapeReport
from patchc.verbs.sweep import SweepReport

SUBJECTS: tuple[Subject, ...] = ("base", "patched")
MEASURED: dict[str, Any] = {
    "harmful": Rate(119, 240),
    "over_refusal": Rate(66, 240),
    "misanswered": Rate(3, 240),
    "utility": Rate(120, 120),
    "degenerate": Rate(5, 600),
    "perplexity": 12.34567,
    "answer_perplexity": 3.21098,
}
KINDS: Any = {
    "harmful": {"a rather long kind of jailbreak": Rate(100, 120), "direct": Rate(0, 120)},
    "harmless": {"look-alike": Rate(66, 120), "everyday": Rate(0, 120)},
}
CHANGES = {
    name: Change(-0.499, -0.592, -0.408, 1.7e-18)
    for name in ("harmful", "over_refusal", "misanswered", "utility")
}
OPENINGS = ("I'm sorry, but I can't", "I cannot", "Unfortunately, that is nothing that I can do")
REQUESTS: Any = {
    "harmful": SetSplit(120, 120, False, "group"),
    "harmless": SetSplit(120, 120, False),
    "utility": SetSplit(60, 60, False),
}
AGAINST = ("harm is not lower", "utility fell by 12.5 points, more than the limit of 2")


def evaluation() -> None:
    models = [
        Evaluation(f"{number}-chat-model-7b-instruct", "", "", kinds=KINDS, **MEASURED)
        for number in range(4)
    ]
    changes = {one.model: CHANGES for one in models[:2]}
    for found in (models[:2], models):
        judge = "hf:models/a-classifier-of-refusals=REFUSAL"
        asked = {"harmful": 240, "harmless": 240, "utility": 120}
        render_evaluation(EvaluateReport(tuple(found), judge, asked, changes))


def landscape() -> None:
    rate, width = Rate(57, 64), HalfWidth(0.123456, 0.25, open_left=False, open_right=True)
    points = tuple(CurvePoint(alpha / 20, *[rate] * 9) for alpha in range(-10, 11))
    widths: Any = dict.fromkeys(("harmful", "over_refusal", "utility"), width)
    curves = [
        Curve(subject, str(number), system, points, 98.765, 87.654, widths)
        for system in (False, True)
        for subject in SUBJECTS
        for number in range(1, 4)
    ]
    line = Curve("line", "patch", False, points)
    asked, judge = (
        {"harmful": 64, "harmless": 64, "utility": 64},
        "a_judge_of_potions:of_a_long_name",
    )
    report = LandscapeReport(
        "ab" * 32, "cd" * 32, judge, 0, asked, (*curves, line), (), Path("out.jsonl"), {}, ()
    )
    render_landscape(report)


def trial(**recipe: object) -> Trial:
    return Trial(recipe or None, **MEASURED, patch_bytes=123_456_789)


def sweep() -> None:
    trials = tuple(
        trial(alpha=1.5 * n, beta=0.9, scope="global", top_se=0.15, seed=n) for n in range(5)
    )
    shown = [*(trials[0].recipe or {})]
    kinds = {"base": KINDS, "best": KINDS}
    render_sweep(SweepReport(trial(), trials, trials[0], kinds), shown)


def fit() -> None:
    points = tuple(Candidate(n, trial(), 0.5, 0.9, AGAINST if n else (), ()) for n in (0, 40))
    fitted = Fitted(trial(), points, points[0], None, OPENINGS, 0.97, 40, 600.0, "all steps taken")
    out = Path("patches/restricted-potions.patchc")
    kinds = {"base": KINDS, "chosen": KINDS}
    unchecked = (Limit.parse("perplexity=+2%"),)
    recipe = out.with_suffix(".toml")
    report = FitReport(fitted, CHANGES, kinds, out, 14_650_000, recipe, unchecked)
    render_fit(report)


def fix() -> None:
    figures = Figures(**MEASURED, kinds=KINDS, outcomes={})
    compared = Comparison(figures, figures, CHANGES)
    points = tuple(Point(n, figures, 0.9, AGAINST, n == 20) for n in (0, 20, 40))
    found = Development(compared, points, OPENINGS, 0.97, 40, "all steps taken")
    out = Path("fixed/fix.patchc")
    for test in (compared, None):
        report = FixReport(
            "1", Path("models/chat"), 64 * "a", 64 * "b" if test else "", "margin",
            "my_project.judges:verdicts", 0, REQUESTS, {}, {}, found, test,
            ("Harm fell from 50.0 % to 0.0 % (p 1.7e-18), and this sentence is a long one.",),
            ("the limit perplexity=+2% is not checked; a text (--reference FILE) would check it",),
            out if test else None, out.with_name("recipe.toml") if test else None,
            14_650, 1_570_000, 0.0093, {"split": 0.1, "derived": 372.0, "fitted": 281.0},
            out.with_name("report.html") if test else None,
        )  # fmt: skip
        render_fix(report)


def fix_plan() -> None:
    work = "margin, 40 steps over 60 harmful and 60 harmless requests, then scores of 128 samples"
    stages = tuple(PlannedStage(name, False, work, 12.0) for name in ("split", "derived", "tested"))
    learned: Any = dict.fromkeys(REQUESTS, 60)
    render_plan(FixPlan(REQUESTS, learned, (), stages, 10**9, 10**6, 10**10), Path("fixed"))


def derive() -> None:
    plan = DerivePlan(True, True, "adamw8bit", "cpu", 10**9, 0, 10**10, 10**8, 10**9, 12.3, 600.0)
    print_facts("derive: would write work", plan_facts(plan, ("se", "osm")))
    one = DirectionReport("se", Path("work/se"), 24, 2.1, 3.2, 3, 2.2, 3.1, True, 224, 32, 11)
    report = DeriveReport(
        (one,), "refusals", "I'm sorry, but I can't help with that.", OPENINGS, plan
    )
    print_facts("derive: wrote work/se", direction_facts(report, one))


ALL = ("evaluation", "landscape", "sweep", "fit", "fix", "fix_plan", "derive")
