"""The stages of a fix: split, derive, fit, test.

Each is made once from its inputs, and its result is kept as JSON. A stage is made again when its
inputs have changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from patchc.errors import EvaluateError
from patchc.evaluation.trials import Trial, encode_trial
from patchc.fixing.job import Job
from patchc.fixing.split import files_of, jsonl
from patchc.progress import Progress
from patchc.regular_file import read_regular
from patchc.signing.trust import JUST_MADE
from patchc.stages import file_digest, file_digests
from patchc.strict_json import UNFIT, parse_json
from patchc.system_errors import storage_errors
from patchc.verbs.derive import derive
from patchc.verbs.derive_inputs import ARGUMENTS
from patchc.verbs.evaluate import evaluate
from patchc.verbs.fit import fit
from patchc.version import __version__

if TYPE_CHECKING:
    from patchc.fitting.fitted import Fitted

Inputs = dict[str, Any]
Result = dict[str, Any]

PATCH, RECIPE = "fix.patchc", "recipe.toml"
_TRACE, _REPLIES = Path("trace", "fit.jsonl"), Path("replies", "results.jsonl")

_STAGES = ("split", "derived", "fitted", "tested")
_RESULT = "found.json"
_MOST_BYTES = 64 << 20


def derived_stage(job: Job, max_memory: int | None, progress: Progress) -> Path:
    """Return the folder of the derived models, after making it if needed.

    Raises:
        PatchcError: as :func:`patchc.derive`.
    """
    options = job.options

    def write_learned(folder: Path) -> None:
        for name, lines in job.requests.conversations(options).items():
            (folder / f"{name}.jsonl").write_bytes(jsonl(lines))

    # A stage of its own, so that users can read the lines that an error names.
    learned = job.stages.run("learned", _derived_inputs(job), write_learned)

    def make(folder: Path) -> None:
        files: dict[str, Any] = {
            ARGUMENTS[name]: learned / f"{name}.jsonl"
            for name in options.derived_from
            if name in job.requests.splits
        }
        report = derive(
            job.base,
            files.pop("data", None),
            folder,
            **files,
            options=options.deriving,
            judge=options.asking.judge,
            max_memory=max_memory,
            progress=progress,
        )
        losses = {one.direction: [one.first_loss, one.last_loss] for one in report.directions}
        models = [path.relative_to(folder) for path in folder.rglob("*.safetensors")]
        weights = blake3(json.dumps(file_digests(folder, models)).encode()).hexdigest()
        result = {"losses": losses, "openings": list(report.openings), "weights": weights}
        _write_result(folder, result)

    return job.stages.run("derived", _derived_inputs(job), make)


def fitted_stage(
    job: Job, split: Path, derived: Path, max_memory: int | None, progress: Progress
) -> Path:
    """Return the folder of the patch and its recipe, after making it if needed.

    The trace is a stage of its own, so that an interrupted fit continues, and so does a fit with
    other limits or more steps.

    Raises:
        UnfixedError: as :func:`patchc.fit`, with its report.
        PatchcError: as :func:`patchc.fit`.
    """
    options = job.options
    trace = job.stages.run("trace", _trace_inputs(job), lambda _: None)

    def make(folder: Path) -> None:
        report = fit(
            job.base,
            **options.models(derived),
            **files_of(split, "development", job.requests.splits),
            reference=job.reference,
            out=folder / PATCH,
            recipe=options.merging,
            recipe_out=folder / RECIPE,
            trace=trace / _TRACE.name,
            options=options.fitting,
            asking=options.speaking,
            max_memory=max_memory,
            progress=progress,
        )
        _write_result(folder, encode_fitted(report.fitted))

    return job.stages.run("fitted", _fitted_inputs(job), make)


def tested_stage(job: Job, split: Path, fitted: Path, progress: Progress) -> Path:
    """Return the folder of the test's figures for base and patched model; make it if needed.

    The replies are a stage of their own, so that an interrupted test continues, and so that the
    base's replies serve the next patch too.

    Raises:
        PatchcError: as :func:`patchc.evaluate`.
    """
    patch = fitted / PATCH
    replies = job.stages.run("replies", _replies_inputs(job), lambda _: None)

    def make(folder: Path) -> None:
        report = evaluate(
            [job.base],
            **files_of(split, "test", job.requests.splits),
            reference=job.reference,
            patch=patch,
            trust=JUST_MADE,
            out=replies / _REPLIES.name,
            options=job.options.speaking,
            progress=progress,
        )
        base, patched = (encode_trial(Trial.of(one, recipe=None)) for one in report.models)
        _write_result(folder, {"base": base, "patched": patched})

    return job.stages.run("tested", _tested_inputs(job, patch), make)


def encode_fitted(fitted: Fitted) -> Result:
    """Turn the result of a fit into JSON values."""
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


@contextmanager
def reading_result(folder: Path) -> Iterator[Result]:
    """Read what a stage computed, and refuse it where the block cannot take it.

    Raises:
        EvaluateError: the file is damaged; says what to do.
        StorageError: it cannot be read.
    """
    path = folder / _RESULT
    try:
        yield _read_result(path)
    except UNFIT as error:
        raise EvaluateError(
            f"{path}: not the result of a stage ({type(error).__name__}: {error!s:.200}); remove "
            f"{folder}, and it is made again"
        ) from error


def _read_result(path: Path) -> Result:
    with storage_errors(path, "read"):
        content = read_regular(path, _MOST_BYTES)
    result: Result = parse_json(content)
    return result


def files_for_page(job: Job) -> list[Path]:
    """Return what the stages left that a page shows: the fit's trace, and the test's replies."""
    return [path for name in (_TRACE, _REPLIES) if (path := job.work / name).is_file()]


def seconds_of(job: Job) -> dict[str, float]:
    """Return the seconds that each stage in the folder took, whatever its inputs were."""
    found = {name: job.stages.seconds(name) for name in _STAGES}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def kept_stages(job: Job) -> dict[str, bool]:
    """Find which stages were made from the same inputs before, so that they are skipped."""
    patch = job.work / "fitted" / PATCH
    fitted = job.stages.done("fitted", _fitted_inputs(job))
    return {
        "split": job.stages.done("split", job.requests.inputs),
        "derived": job.stages.done("derived", _derived_inputs(job)),
        "fitted": fitted,
        "tested": fitted and job.stages.done("tested", _tested_inputs(job, patch)),
    }


def _derived_inputs(job: Job) -> Inputs:
    options = job.options
    return {
        "patchc": __version__,
        "base": {"digest": job.digest, "side files": dict(job.side_files)},
        "requests": job.requests.digests("development"),
        "validation": options.fitting.validation,
        "options": options.deriving.to_json(),
        "judge": options.asking.judge_name,
        "system": options.asking.system,
    }


def _trace_inputs(job: Job) -> Inputs:
    """Collect what every step and measured point of a fit depends on."""
    folder = job.work / "derived"
    weights = None
    if (folder / _RESULT).exists():
        with reading_result(folder) as found:
            # Another machine may round the same derivation differently.
            weights = found.get("weights")
    return {
        **_derived_inputs(job),
        "derived": weights,
        "recipe": job.options.merging.to_json(),
        "fit": job.options.fitting.course(),
        "asking": _asking_inputs(job),
    }


def _fitted_inputs(job: Job) -> Inputs:
    return {**_trace_inputs(job), "fit": job.options.fitting.to_json()}


def _replies_inputs(job: Job) -> Inputs:
    """Collect what the replies to the test requests depend on, apart from the weights."""
    return {
        "patchc": __version__,
        "side files": dict(job.side_files),
        "requests": job.requests.digests("test"),
        "asking": _asking_inputs(job),
    }


def _tested_inputs(job: Job, patch: Path) -> Inputs:
    return {**_replies_inputs(job), "base": job.digest, "patch": file_digest(patch)}


def _asking_inputs(job: Job) -> Inputs:
    asking = job.options.asking
    return {
        "judge": asking.judge_name,
        "max_new_tokens": asking.max_new_tokens,
        "batch_size": asking.batch_size,
        "dtype": asking.dtype,
        "system": asking.system,
        "device": asking.device,
        "reference": file_digest(job.reference) if job.reference else None,
    }


def _write_result(folder: Path, result: Result) -> None:
    (folder / _RESULT).write_text(json.dumps(result), encoding="utf-8")
