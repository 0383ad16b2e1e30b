"""What one fix is about, and what each of its stages is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from patchc.checkpoint import open_checkpoint, refuse_quantised
from patchc.errors import UnsupportedInputError, UsageError
from patchc.evaluation.judges import check_judge_is_known_by_name
from patchc.evaluation.paired import check_scipy
from patchc.evaluation.requests import SetName
from patchc.files import check_output, storage_errors
from patchc.fitting.fit_options import unmeasured
from patchc.fixing.fix_options import FixOptions
from patchc.fixing.split import (
    DEVELOPMENT,
    TEST,
    Files,
    Parts,
    check_parts,
    part_requests,
    split_warnings,
)
from patchc.patching.digest import digest_checkpoint
from patchc.runtime.workers import Workers
from patchc.stages import Stages, file_digest, file_digests
from patchc.verbs.evaluate import read_reference
from patchc.version import __version__

Inputs = dict[str, Any]

WORK = "work"
FOUND = "found.json"
"""What a stage found, in its folder."""
_OURS: Inputs = {"made by": "patchc fix"}


@dataclass(frozen=True)
class Job:
    """The inputs of a fix, checked and read.

    Attributes:
        base: the model's folder.
        digest: of its weights, in hexadecimal, as patches state it.
        side_files: the BLAKE3 of each other file of the folder, by name.
        nbytes: size of its weights.
        out: the folder of the results.
        files: the requests of each set.
        reference: a text to take the perplexity of, or None.
        options: the parameters.
        parts: the requests, read and split.
    """

    base: Path
    digest: str
    side_files: Mapping[str, str]
    nbytes: int
    out: Path
    files: Mapping[SetName, Files]
    reference: Path | None
    options: FixOptions
    parts: Parts

    @cached_property
    def stages(self) -> Stages:
        """Those of this job, below ``out/work``."""
        return Stages(self.out / WORK)

    def begin(self) -> None:
        """Make ``out`` a folder of fixes where it is none yet.

        Raises:
            OutputError, StorageError: it cannot be.
        """
        Stages(self.out).run(WORK, _OURS, lambda _: None)

    def split_inputs(self) -> Inputs:
        """What the split is made from."""
        return _split_inputs(self.files, self.options)

    def derived_inputs(self) -> Inputs:
        """What the derivation is made from."""
        options = self.options
        return {
            "patchc": __version__,
            "base": self._model,
            "requests": self.parts.digests(DEVELOPMENT),
            "validation": options.fitting.validation,
            "options": options.deriving.to_json(),
            "judge": options.asking.judge_name,
            "system": options.asking.system,
        }

    def trace_inputs(self) -> Inputs:
        """What every step and measured point of a fit depends on."""
        return {
            **self.derived_inputs(),
            "derived": self._derived,
            "recipe": self.options.merging.to_json(),
            "fit": self.options.fitting.course(),
            "asking": self._asking,
        }

    def fitted_inputs(self) -> Inputs:
        """What the fit and its patch are made from."""
        return {**self.trace_inputs(), "fit": self.options.fitting.to_json()}

    def replies_inputs(self) -> Inputs:
        """What the replies to the test requests depend on, beside the model's weights."""
        return {
            "patchc": __version__,
            "side files": dict(self.side_files),
            "requests": self.parts.digests(TEST),
            "asking": self._asking,
        }

    def tested_inputs(self, patch: Path) -> Inputs:
        """What the test is made from."""
        return {**self.replies_inputs(), "base": self.digest, "patch": file_digest(patch)}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the figures less than they seem."""
        unchecked = unmeasured(
            self.options.fit.limits, "utility" in self.files, self.reference is not None
        )
        return (
            *split_warnings(self.parts, self.options),
            *(f"the limit {one} is not checked: {one.name} is not measured" for one in unchecked),
        )

    @property
    def _derived(self) -> str | None:
        """A digest of what was derived; None before it is there.

        The same derivation may round otherwise on another machine.
        """
        found = self.out / WORK / "derived" / FOUND
        if not found.exists():
            return None
        with storage_errors(found, "read"):
            digest: str | None = json.loads(found.read_bytes()).get("weights")
        return digest

    @property
    def _model(self) -> Inputs:
        return {"digest": self.digest, "side files": dict(self.side_files)}

    @property
    def _asking(self) -> Inputs:
        asking = self.options.asking
        return {
            "judge": asking.judge_name,
            "max_new_tokens": asking.max_new_tokens,
            "batch_size": asking.batch_size,
            "dtype": asking.dtype,
            "system": asking.system,
            "device": asking.device,
            "reference": file_digest(self.reference) if self.reference else None,
        }


def open_job(
    base: Path,
    out: Path,
    files: Mapping[SetName, Files],
    reference: Path | None,
    options: FixOptions,
) -> Job:
    """Check everything that can be checked before work begins; nothing is written.

    Raises:
        CheckpointError, UnsupportedInputError: the base cannot be read, or not trained.
        EvaluateError, DeriveError: requests cannot be read, are too few, or lack responses.
        OutputError: ``out`` holds something that no fix began.
        UsageError, MissingExtraError: a judge without a name; SciPy is not installed.
    """
    check_scipy()
    check_judge_is_known_by_name(options.asking)
    if options.derive.objective != "margin" and options.derive.weight_of_anchor:
        _check_anchor(files)
    with open_checkpoint(base) as checkpoint:
        if not checkpoint.is_folder:
            raise UnsupportedInputError(
                f"{base}: fix needs the model's folder, with its config and tokenizer, not one file"
            )
        refuse_quantised(base, tuple(checkpoint.tensors))
        inputs = [path for given in files.values() for path in _paths(given)]
        if reference:
            inputs.append(reference)
            read_reference(reference)
        _check_out(out, (base, *inputs))
        parts = _parts(out, files, options)
        check_parts(parts, options)
        with Workers() as workers:
            digest = digest_checkpoint(checkpoint, workers).hex()
        kept, _ = checkpoint.side_files()
        side_files = file_digests(base, kept)
        nbytes = checkpoint.nbytes
    return Job(base, digest, side_files, nbytes, out, files, reference, options, parts)


def _parts(out: Path, files: Mapping[SetName, Files], options: FixOptions) -> Parts:
    """The split that is kept, or a new one."""
    if Stages(out / WORK).done("split", _split_inputs(files, options)):
        return Parts.read(out / WORK / "split")
    return part_requests(files, options)


def _split_inputs(files: Mapping[SetName, Files], options: FixOptions) -> Inputs:
    return {
        "patchc": __version__,
        "files": {
            name: [file_digest(Path(path)) for path in given]
            if isinstance(given, tuple)
            else file_digest(Path(given))
            for name, given in files.items()
        },
        "limit": options.asking.limit,
        "test_share": options.test_share,
        "seed": options.seed,
    }


def _check_out(out: Path, inputs: tuple[Path, ...]) -> None:
    """Refuse a folder with content, unless a fix began it."""
    if Stages(out).done(WORK, _OURS):
        return
    content = list(out.iterdir()) if out.is_dir() else []
    if content and all(fnmatch(path.name, f".{WORK}.*.partial") for path in content):
        return
    check_output(out, inputs)


def _paths(given: Files) -> list[Path]:
    return [Path(path) for path in (given if isinstance(given, tuple) else (given,))]


def _check_anchor(files: Mapping[SetName, Files]) -> None:
    if "utility" not in files:
        raise UsageError(
            "anchor_weight is above 0, and there is no text to anchor on; give utility questions"
        )
