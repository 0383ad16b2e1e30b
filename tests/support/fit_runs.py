"""Fits that take seconds, on the tiny models of fit_inputs.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fit_inputs import says_ash

import patchc
from patchc import EvaluateOptions, FitOptions, Recipe
from patchc.verbs.fit import FitReport

ASKING = EvaluateOptions(judge=says_ash, max_new_tokens=5)
RECIPE = Recipe(retain=0.9, top_se=0.8, top_osm=0.8, alpha=1, beta=1, sets="union")
OPTIONS = FitOptions(steps=12, learning_rate=0.3, limits=(), best_effort=True)


def run(models: Path, requests: dict[str, Path], out: Path, **more: Any) -> FitReport:
    named = {
        "se": models / "se",
        "osm": models / "osm",
        "recipe": RECIPE,
        "options": OPTIONS,
        "asking": ASKING,
        **requests,
        **more,
    }
    return patchc.fit(models / "base", out=out, **named)
