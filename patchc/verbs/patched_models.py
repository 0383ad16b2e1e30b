"""A model measured without and with a patch, which is applied to a temporary copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from patchc.errors import AlreadyPatchedError, PartlyPatchedError, UsageError, WrongBaseError
from patchc.escaping import shown
from patchc.evaluation.measure import Evaluation
from patchc.formats import open_patch
from patchc.patching.code_files import refuse_code
from patchc.patching.left_alone import refusal
from patchc.progress import Progress
from patchc.signing.trust import Trust, demand_trust
from patchc.verbs.apply import apply
from patchc.verbs.inspect import inspect
from patchc.verbs.verify import verify

SCRATCH = "patchc-evaluate-"
_SHOWN = 80

Ask = Callable[[Path, str], Evaluation]
"""Measures the model in a folder, under a name."""


def check_signed(patch: Path, trust: Trust) -> None:
    """Refuse a patch that is not signed as asked for.

    Raises:
        SignatureError: it is not.
    """
    with open_patch(patch) as opened:
        demand_trust(opened, trust)


def check_changes_weights(patch: Path) -> None:
    """Refuse a patch of side files alone: a results file tells models apart by their weights.

    Raises:
        UsageError: it is one.
        PatchFormatError, UnsupportedPatchError: it cannot be read.
    """
    found = inspect(patch)
    files = [one.name for one in found.update.files if not one.is_header] if found.update else []
    if files and found.base_digest == found.result_digest:
        raise UsageError(
            f"{patch} changes files alone ({shown(files[0], _SHOWN)}) and no weights, by which a "
            "results file tells models apart; evaluate without a results file"
        )


def check_patch(patch: Path, folder: Path | None, trust: Trust, progress: Progress) -> None:
    """Refuse a damaged patch, code that is not allowed, and a model that is not the patch's base.

    Raises:
        WrongBaseError, AlreadyPatchedError, PartlyPatchedError: by the state of the model; with
            None in its place, only the patch is checked.
        SideFileError: side files that the patch changes, other than cards, are not the base's.
        CodeError: ``trust`` does not allow the code that it brings.
        and what :func:`patchc.verify` raises.
    """
    report = verify(patch, folder, trust=trust, progress=progress)
    if folder is not None and report.state != "base":
        refusals = {"patched": AlreadyPatchedError, "partly patched": PartlyPatchedError}
        raise refusals.get(report.state, WrongBaseError)(
            report.difference
            or f"{folder} is {report.state} with {patch}; name the model without it"
        )
    if refused := refusal(patch, folder, "base", report.side_files):
        raise refused
    if not trust.allow_code:
        refuse_code(patch, report.code.files)


def with_and_without(
    patch: Path, folder: Path, name: str, ask: Ask, trust: Trust, progress: Progress
) -> list[Evaluation]:
    """Measure a model without and with a patch, which is applied before any request is asked."""
    with TemporaryDirectory(prefix=SCRATCH) as scratch:
        copy = Path(scratch) / "patched"
        apply(patch, folder, out=copy, trust=trust, progress=progress)
        plain = ask(folder, name)
        patched = ask(copy, f"{name} + {patch.name}")
    return [plain, replace(patched, path=str(folder), patch=str(patch))]
