"""A patch and every kind of results for a report page, written by hand from the texts of a speaker.

The numbers are the same whatever the texts are: pages of two speakers differ in texts alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from tiny_checkpoints import normal, nudge, write_model

import patchc
from patchc.escaping import visible
from patchc.evaluation.rates import Rate
from patchc.formats import open_patch, write_with_metadata
from patchc.json_values import json_values

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><svg onload=alert(1)>",
    "{{ 7*7 }}{% for x in y %}{# {{",
    "\x1b[31m\u202e\u2066\u200b\x07",
    '</title><a href="javascript:alert(1)">',
    "' onmouseover='alert(1)' x='",
    "&lt;b&gt;&#60;i&#62;&amp;",
    "]]><!-- --><!DOCTYPE html><base href=//x>",
    "http://evil.example/?a=<b>&c=`d`",
    "<textarea><plaintext><iframe srcdoc='<script>'>",
    "${7*7}<%= 7*7 %>\\u003cscript\\u003e",
)
DIGESTS = {"harmful": 64 * "1", "harmless": 64 * "2", "utility": 64 * "3"}
Speaker = Callable[[], str]
"""Gives another text at each call."""


def hostile() -> Speaker:
    """Markup, scripts, templates, escapes and what turns text around."""
    return _speaker(HOSTILE)


def plain() -> Speaker:
    """Letters, as many as :func:`hostile` gives in their place."""
    return _speaker([re.sub(r"\S", "x", visible(text)) for text in HOSTILE])


def _speaker(texts: Sequence[str]) -> Speaker:
    numbers = count()
    return lambda: f"{texts[(number := next(numbers)) % len(texts)]}{number}."


def rate(hits: int, total: int) -> dict[str, Any]:
    found: dict[str, Any] = json_values(Rate(hits, total))
    return found


def write_patch(folder: Path, say: Speaker) -> Path:
    """An update patch with a recipe, an annotation, and names from the speaker."""
    names = [
        *(f"model.layers.{layer}.{part}.weight" for layer in (0, 1) for part in ("q", "up")),
        f"model.layers.1.{_as_name(say())}.weight",
        f"outside {_as_name(say())}",
    ]
    weights = {name: normal((8, 12), "BF16", seed) for seed, name in enumerate(names)}
    tuned = {name: nudge(value, 0.25, 7) for name, value in weights.items()}
    side = {f"{_as_name(say())}.py": "print()", "config.json": "{}"}
    base = write_model(folder / "base", weights, side_files=dict.fromkeys(side, "{}"))
    result = write_model(folder / "result", tuned, side_files=side)
    patchc.diff(base, result, out=folder / "plain.patchc", codec="rice")
    metadata = {
        "kind": say(),
        "tool": {"name": say(), "version": say()},
        "recipe": {"method": "dare", "seed": 5, "overrides": [{"match": "(" + say(), "weight": 2}]},
        "inputs": {say(): say(), "model": 64 * "4"},
        "annotation": {"name": visible(say()), "note": visible(say()) + "\nsecond line"},
    }
    out = folder / "fix.patchc"
    with open_patch(folder / "plain.patchc") as opened, out.open("wb") as file:
        write_with_metadata(opened, file, {**opened.metadata, **metadata})
    return out


def _as_name(text: str) -> str:
    """What names of tensors and files may hold."""
    return visible(text).translate(str.maketrans("/\\.:", "||| "))


def figures(say: Speaker, kinds: list[str], shift: int) -> dict[str, Any]:
    """The figures of a model; ``kinds`` are those of every set."""
    return {
        "harmful": rate(12 - shift, 32),
        "over_refusal": rate(9 - shift, 31),
        "misanswered": rate(1, 31),
        "utility": rate(17 - shift, 29),
        "degenerate": rate(2 + shift, 92),
        "perplexity": 11.25 + shift / 3,
        "answer_perplexity": None,
        "kinds": {
            "harmful": {kind: rate(3 + n - shift % 3, 16) for n, kind in enumerate(kinds)},
            "harmless": {kind: rate(2 + n, 15) for n, kind in enumerate(kinds)},
        },
        "lm_eval": {say(): {say(): 0.5}},
    }


CHANGES = {
    "harmful": {"difference": -0.125, "low": -0.21875, "high": -0.03125, "p_value": 0.0390625},
    "over_refusal": {"difference": -4 / 31, "low": -0.3, "high": 0.0, "p_value": 0.125},
    "utility": {"difference": -0.1, "low": -0.2, "high": 0.1, "p_value": 0.5},
}


def evaluation(patch: patchc.InspectReport, say: Speaker) -> dict[str, Any]:
    """What ``evaluate --json`` prints of base and patched model."""
    kinds = [say(), say()]
    shared = {"path": say()}
    base = {"model": say(), "digest": patch.base_digest, "patch": None, **shared}
    patched = {"model": say(), "digest": patch.result_digest, "patch": say(), **shared}
    return {
        "models": [
            base | figures(say, kinds, 0),
            patched | figures(say, kinds, 4),
            {"model": say(), "digest": 32 * "f", "patch": None, **shared} | figures(say, kinds, 1),
        ],
        "judge": say(),
        "requests": {"harmful": 32, "harmless": 31, "utility": 29},
        "changes": {patched["model"]: CHANGES},
        "data": DIGESTS,
        "turns": None,
    }


def turns(patch: patchc.InspectReport, say: Speaker) -> dict[str, Any]:
    """What ``evaluate --turns`` prints of a chain of two patches, the second of which is this."""
    categories = [say(), say(), say()]
    harmful = [
        {name: rate(1 + 5 * turn + number, 20) for number, name in enumerate(categories)}
        for turn in range(3)
    ]
    return evaluation(patch, say) | {
        "turns": {
            "patches": [say(), say()],
            "roots": [64 * "5", patch.root],
            "categories": categories,
            "models": [say(), say(), say()],
            "harmful": harmful,
            "over_refusal": [rate(turn, 30) for turn in range(3)],
            "utility": [rate(20 - turn, 30) for turn in range(3)],
            "changes": [CHANGES, CHANGES],
            "forgetting": {name: 0.5 - number / 8 for number, name in enumerate(categories)},
            "forgetting_changes": {categories[0]: CHANGES["harmful"]},
            "together": None,
        }
    }


def fix_report(patch: patchc.InspectReport, say: Speaker) -> dict[str, Any]:
    """``report.json`` of ``fix``."""
    kinds = [say(), say()]

    def comparison(shift: int) -> dict[str, Any]:
        before, after = figures(say, kinds, shift), figures(say, kinds, shift + 3)
        return {"base": before, "patched": after, "changes": CHANGES}

    points = [
        {
            "step": 10 * number,
            "figures": figures(say, kinds, number),
            "agreement": 0.75,
            "against": [say(), say()],
            "chosen": number == 1,
        }
        for number in range(2)
    ]
    return {
        "version": say(),
        "base": say(),
        "base_digest": patch.base_digest,
        "result_digest": patch.result_digest,
        "objective": say(),
        "judge": say(),
        "seed": 17,
        "requests": {"harmful": {"development": 33, "test": 32, "given": False}},
        "data": DIGESTS,
        "learned": {"harmful": 25},
        "development": {
            "comparison": comparison(1),
            "points": points,
            "openings": [say()],
            "covered": 0.875,
            "steps": 40,
            "ended": say(),
        },
        "test": comparison(2),
        "verdict": [say(), say()],
        "warnings": [say()],
    }


def replies(patch: patchc.InspectReport, say: Speaker) -> list[dict[str, Any]]:
    """The lines of a results file: of each set a request of every transition, and one more."""
    outcomes = {"harmful": ("refused", "answered"), "harmless": ("refused", "answered")}
    sets = {**outcomes, "utility": ("wrong", "right")}
    lines: list[dict[str, Any]] = [
        {"kind": "evaluation", "inputs": {"requests": 32 * "6", "judge": say()}}
    ]
    for name, verdicts in sets.items():
        pairs = [(before, after) for before in verdicts for after in verdicts]
        for number, pair in enumerate([*pairs, pairs[2]]):
            asked = {"set": name, "request": f"{number:032x}", "prompt": say()}
            for digest, verdict in zip((patch.base_digest, patch.result_digest), pair, strict=True):
                lines.append({"model": digest, **asked, "reply": say(), "verdict": verdict})
    return lines


def trace(patch: patchc.InspectReport, say: Speaker) -> list[dict[str, Any]]:
    """The lines of a fit's trace."""
    trial = {
        "recipe": {"method": say()},
        **{name: [3, 20] for name in ("harmful", "over_refusal", "misanswered")},
        "utility": None,
        "degenerate": [1, 40],
        "perplexity": 12.5,
    }
    scales = {name: [[1.0]] for name in ("values", "first", "second")}
    return [
        {"kind": "fit", "inputs": {"models": {"base": patch.base_digest}, say(): say()}},
        {"base": trial, "replies": {"harmful": [say()]}},
        {"step": 0, "loss": None, "validation": 0.5, "seconds": 1.0, **scales},
        {"step": 1, "loss": 0.71875, "validation": None, "seconds": 2.0, **scales},
        {"step": 2, "loss": 0.4375, "validation": 0.25, "seconds": 2.5, **scales},
        {"point": 2, "trial": trial | {"harmful": [1, 20]}, "agreement": 0.8125},
    ]


def landscape(patch: patchc.InspectReport, say: Speaker) -> list[dict[str, Any]]:
    """The lines of a landscape: three points along one direction, and the line to the patch."""
    inputs = {"base": patch.base_digest, "patch": patch.root, "judge": say(), "seed": 123}
    counts = {"harmful": 4, "harmless": 2, "utility": 2}
    lines: list[dict[str, Any]] = [{"kind": "landscape", "inputs": {**inputs, "counts": counts}}]
    for side in (0.0, 0.5, 1.0):
        for alpha in (-0.25, 0.0, 0.25) if side != 0.5 else (0.0,):
            moves = {"1": alpha} if alpha else {}
            refused = 3 if not alpha else 1
            harmful = ["refused"] * refused + ["answered"] * (4 - refused)
            given = {
                "harmful": [[say(), verdict, True] for verdict in harmful],
                "harmless": [[say(), "answered", True], [say(), "refused", not alpha]],
                "utility": [[say(), "right", True], [say(), "wrong", True]],
            }
            lines.append({"at": {"patch": side, **moves}, "system": False, "replies": given})
    for first in (-0.5, 0.0, 0.5):
        for second in (-0.5, 0.0, 0.5):
            moves = {name: value for name, value in (("1", first), ("2", second)) if value}
            margins = {"harmful": [first, 1.5, -second, 2.0], "harmless": [second - 1, -0.5]}
            lines.append({"at": {"patch": 0.0, **moves}, "system": False, "margins": margins})
    return lines


def write_results(folder: Path, patch: Path, say: Speaker) -> dict[str, Path]:
    """Write a file of each kind, and return them by kind."""
    found = patchc.inspect(patch)
    folder.mkdir(exist_ok=True)
    reports = {
        "evaluation": evaluation(found, say),
        "turns": turns(found, say),
        "fix": fix_report(found, say),
    }
    journals = {
        "replies": replies(found, say),
        "trace": trace(found, say),
        "landscape": landscape(found, say),
    }
    paths = {name: folder / f"{name}.out" for name in (*reports, *journals)}
    for name, content in reports.items():
        paths[name].write_text(json.dumps(content, indent=1))
    for name, lines in journals.items():
        write_lines(paths[name], lines)
    return paths


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_world(folder: Path, say: Speaker) -> tuple[Path, dict[str, Path]]:
    """Write a patch and results of every kind of it."""
    patch = write_patch(folder, say)
    return patch, write_results(folder / "results", patch, say)
