"""A patched copy of a model in the system's temporary folder, for verbs that measure it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from patchc.errors import AlreadyPatchedError, PartlyPatchedError, WrongBaseError
from patchc.patching.code_files import refuse_code
from patchc.progress import Progress
from patchc.signing.trust import Trust
from patchc.verbs.apply import apply
from patchc.verbs.verify import verify


def check_patch(patch: Path, folder: Path, trust: Trust, progress: Progress) -> None:
    """Check that a patch is intact, is trusted and belongs on a model, before work is begun.

    Raises:
        WrongBaseError, AlreadyPatchedError, PartlyPatchedError: the model is not the patch's base.
        CodeError: the patch has files that would be run, and ``trust`` does not allow code.
        and what :func:`patchc.verify` raises.
    """
    report = verify(patch, folder, trust=trust, progress=progress)
    if report.state != "base":
        refusals = {"patched": AlreadyPatchedError, "partly patched": PartlyPatchedError}
        raise refusals.get(report.state, WrongBaseError)(
            report.difference
            or f"{folder} is {report.state} with {patch}; name the model without it"
        )
    if not trust.allow_code:
        refuse_code(patch, report.code.files)


@contextmanager
def patched_copy(
    patch: Path, folder: Path, prefix: str, trust: Trust, progress: Progress
) -> Iterator[Path]:
    """Apply a patch to a copy, which is removed in the end.

    Raises:
        PatchcError: what :func:`patchc.apply` raises.
    """
    with TemporaryDirectory(prefix=prefix) as scratch:
        copy = Path(scratch) / "patched"
        apply(patch, folder, out=copy, trust=trust, progress=progress)
        yield copy
