"""The inputs of a fix: checked and read before its stages run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from patchc.checkpoint import (
    open_checkpoint,
    refuse_adapter_beside,
    refuse_quantised,
    refuse_single_file,
)
from patchc.errors import UsageError
from patchc.evaluation.judges import check_judge_is_known_by_name, open_judge
from patchc.evaluation.paired import check_scipy
from patchc.evaluation.requests import SetName
from patchc.fitting.fit_options import unmeasured
from patchc.fixing.fix_options import FixOptions
from patchc.fixing.split import Files, SplitRequests, open_split
from patchc.output_checks import check_output
from patchc.patching.digest import digest_checkpoint
from patchc.paths import PathLike
from patchc.reserved import leftovers
from patchc.runtime.runtime import Runtime
from patchc.stages import Stages, file_digests
from patchc.system_errors import storage_errors
from patchc.verbs.evaluate import read_reference

_WORK = "work"
_OURS = {"made by": "patchc fix"}
_MEASURED_BY = {
    "utility": "questions (--utility FILE)",
    "perplexity": "a text (--reference FILE)",
}


@dataclass(frozen=True)
class Job:
    """The inputs of a fix, checked and read.

    Attributes:
        base: the model's folder.
        digest: the digest of its weights that patches state, in hexadecimal.
        side_files: the BLAKE3 of each other file of the folder, by name.
        nbytes: size of its weights.
        out: the folder of the results.
        reference: a text to take the perplexity of, or None.
        options: the parameters.
        requests: the requests, read and split.
    """

    base: Path
    digest: str
    side_files: Mapping[str, str]
    nbytes: int
    out: Path
    reference: Path | None
    options: FixOptions
    requests: SplitRequests

    @property
    def work(self) -> Path:
        """The folder of the stages."""
        return self.out / _WORK

    @property
    def stages(self) -> Stages:
        """The stages of this fix."""
        return Stages(self.work)

    def begin(self) -> None:
        """Mark ``out`` as the folder of a fix, unless it is one.

        Raises:
            OutputError, StorageError: it cannot be made.
        """
        Stages(self.out).run(_WORK, _OURS, lambda _: None)

    @property
    def learned(self) -> dict[SetName, int]:
        """Number of development requests to learn from, by set."""
        return {name: len(lines) for name, lines in self.requests.learned(self.options).items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what limits the meaning of the figures."""
        unchecked = unmeasured(
            self.options.fit.limits, "utility" in self.requests.splits, self.reference is not None
        )
        return (
            *self.requests.warnings(self.options),
            *(
                f"the limit {one} is not checked; {_MEASURED_BY[one.name]} would check it"
                for one in unchecked
            ),
        )


def open_job(
    base: PathLike,
    out: PathLike,
    harmful: Files,
    harmless: Files,
    utility: Files | None,
    reference: PathLike | None,
    options: FixOptions | None,
) -> Job:
    """Check everything that can be checked before work begins; nothing is written.

    Raises:
        CheckpointError, UnsupportedInputError: the base cannot be read, or cannot be trained.
        EvaluateError, DeriveError: requests cannot be read, are too few, or lack responses.
        OutputError: ``out`` has content that no fix made.
        UsageError, MissingExtraError: an option cannot be met; SciPy is not installed.
    """
    base, out, options = Path(base), Path(out), options or FixOptions()
    text = Path(reference) if reference else None
    given: dict[SetName, Files | None] = {
        "harmful": harmful,
        "harmless": harmless,
        "utility": utility,
    }
    files = {
        name: tuple(map(Path, one if isinstance(one, tuple) else (one,)))
        for name, one in given.items()
        if one is not None
    }
    unmeasured(options.fit.limits, "utility" in files, text is not None)
    open_judge(options.asking)
    check_scipy()
    check_judge_is_known_by_name(options.asking)
    anchored = options.derive.objective != "margin" and options.derive.weight_of_anchor
    if anchored and "utility" not in files:
        raise UsageError(
            "anchor_weight is above 0, and there is no text to anchor on; give utility questions"
        )
    with open_checkpoint(base) as checkpoint:
        refuse_single_file(base, "fix")
        refuse_adapter_beside(checkpoint.path)
        refuse_quantised(checkpoint)
        inputs = [base, *(path for paths in files.values() for path in paths)]
        if text:
            inputs.append(text)
            read_reference(text)
        _check_out(out, tuple(inputs))
        requests = open_split(out / _WORK, files, options)
        requests.check(options)
        with Runtime() as runtime:
            digest = digest_checkpoint(checkpoint, runtime).hex()
        side_files = file_digests(base, checkpoint.side_files()[0])
        nbytes = checkpoint.nbytes
    return Job(base, digest, side_files, nbytes, out, text, options, requests)


def _check_out(out: Path, inputs: tuple[Path, ...]) -> None:
    """Refuse a folder with content, unless a fix made it."""
    if Stages(out).done(_WORK, _OURS):
        return
    with storage_errors(out, "reach"):
        content = set(out.iterdir()) if out.is_dir() else set()
    if content and content <= set(leftovers(out / _WORK)):
        return
    check_output(out, inputs)
