"""The stages of a fix: derive, fit, test; each made once, and what it found kept as JSON."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from patchc.evaluation.trials import Trial, encode_trial
from patchc.fixing.job import FOUND, Job
from patchc.fixing.split import DEVELOPMENT, TEST, files_of, jsonl, learned
from patchc.progress import Progress
from patchc.stages import file_digests
from patchc.verbs.derive import derive
from patchc.verbs.evaluate import evaluate
from patchc.verbs.fit import fit

if TYPE_CHECKING:
    from patchc.fitting.run import Fitted

Found = dict[str, Any]

STAGES = ("split", "derived", "fitted", "tested")
PATCH, RECIPE = "fix.patchc", "recipe.toml"

_DATA = {"harmful": "data", "harmless": "harmless", "utility": "anchor"}
_TAKES = {"margin": ("harmful", "harmless"), "answers": ("harmless",)}


def split_stage(job: Job) -> Path:
    """The folder with the split requests."""
    return job.stages.run("split", job.split_inputs(), job.parts.write)


def derived_stage(job: Job, progress: Progress) -> Path:
    """The folder with the derived models, made where it is not there yet.

    Raises:
        PatchcError: as :func:`patchc.derive`.
    """
    options = job.options
    # Beside the stage, so that an error names lines that are there to be read.
    learned_from = job.stages.run("learned", job.derived_inputs(), partial(_write_learned, job))

    def make(folder: Path) -> None:
        files = _learned_files(job, learned_from)
        report = derive(
            job.base,
            files.pop("data", None),
            folder,
            **files,
            options=options.deriving,
            judge=options.asking.judge,
            progress=progress,
        )
        losses = {one.direction: [one.first_loss, one.last_loss] for one in report.directions}
        models = [path.relative_to(folder) for path in folder.rglob("*.safetensors")]
        weights = blake3(json.dumps(file_digests(folder, models)).encode()).hexdigest()
        found = {"losses": losses, "openings": list(report.openings), "weights": weights}
        _write(folder, found)

    return job.stages.run("derived", job.derived_inputs(), make)


def fitted_stage(job: Job, split: Path, derived: Path, progress: Progress) -> Path:
    """The folder with patch and recipe, made where it is not there yet.

    The trace is kept beside it, so that a fit that was interrupted goes on, and so does one with
    other limits or more steps.

    Raises:
        UnfixedError: as :func:`patchc.fit`, with what :func:`encode_fitted` gives as its report.
        PatchcError: as :func:`patchc.fit`.
    """
    options = job.options
    trace = job.stages.run("trace", job.trace_inputs(), _leave_empty)

    def make(folder: Path) -> None:
        report = fit(
            job.base,
            **options.models(derived),
            **files_of(split, DEVELOPMENT, list(job.parts.splits)),
            reference=job.reference,
            out=folder / PATCH,
            recipe=options.merging,
            recipe_out=folder / RECIPE,
            trace=trace / "fit.jsonl",
            options=options.fitting,
            asking=options.speaking,
            progress=progress,
        )
        _write(folder, encode_fitted(report.fitted))

    return job.stages.run("fitted", job.fitted_inputs(), make)


def tested_stage(job: Job, split: Path, fitted: Path, progress: Progress) -> Path:
    """The folder with the figures of base and patched model on the test requests.

    Replies are kept beside it, so that an interrupted test goes on, and the base's serve the next
    patch too.

    Raises:
        PatchcError: as :func:`patchc.evaluate`.
    """
    patch = fitted / PATCH
    replies = job.stages.run("replies", job.replies_inputs(), _leave_empty)

    def make(folder: Path) -> None:
        report = evaluate(
            [job.base],
            **files_of(split, TEST, list(job.parts.splits)),
            reference=job.reference,
            patch=patch,
            out=replies / "results.jsonl",
            options=job.options.speaking,
            progress=progress,
        )
        base, patched = (encode_trial(Trial.of(one, recipe=None)) for one in report.models)
        _write(folder, {"base": base, "patched": patched})

    return job.stages.run("tested", job.tested_inputs(patch), make)


def encode_fitted(fitted: Fitted) -> Found:
    """What a fit found, as JSON values."""
    return {
        "base": encode_trial(fitted.base),
        "candidates": [
            {
                "step": one.step,
                "trial": encode_trial(one.trial),
                "validation": one.validation,
                "agreement": one.agreement,
                "against": list(one.against),
                "chosen": one is fitted.best,
            }
            for one in fitted.candidates
        ],
        "openings": list(fitted.openings),
        "covered": fitted.covered,
        "steps": fitted.steps,
        "ended": fitted.ended,
    }


def found_in(folder: Path) -> Found:
    """What a stage found."""
    found: Found = json.loads((folder / FOUND).read_bytes())
    return found


def seconds_of(job: Job) -> dict[str, float]:
    """How long each stage took that is there, whatever it was made from."""
    found = {name: job.stages.seconds(name) for name in STAGES}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def _write_learned(job: Job, folder: Path) -> None:
    for name, lines in learned(job.parts, job.options).items():
        (folder / f"{name}.jsonl").write_bytes(jsonl(lines))


def _learned_files(job: Job, folder: Path) -> dict[str, Path]:
    """The files that the objective takes, by the names of :func:`patchc.derive`."""
    names = set(_TAKES.get(job.options.derive.objective, ("harmful",)))
    if job.options.derive.weight_of_anchor:
        names.add("utility")
    taken = names.intersection(job.parts.splits)
    return {_DATA[name]: folder / f"{name}.jsonl" for name in taken}


def _write(folder: Path, found: Found) -> None:
    (folder / FOUND).write_text(json.dumps(found), encoding="utf-8")


def _leave_empty(_folder: Path) -> None:
    """A stage that others write into as they go: a journal's folder."""
