"""Patches that follow one another, each applied to the copy that the one before it left."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from patchc.errors import (
    AlreadyPatchedError,
    MismatchError,
    PartlyPatchedError,
    SideFileError,
    UnsupportedInputError,
    UsageError,
    WrongBaseError,
)
from patchc.evaluation.measure import Evaluation
from patchc.evaluation.requests import RequestSets
from patchc.evaluation.turns import PatchNames, TurnsReport, describe_turns
from patchc.formats import open_patch
from patchc.patching.pending_chunks import check_in_place
from patchc.progress import Progress
from patchc.signing.trust import Trust
from patchc.verbs.apply import apply
from patchc.verbs.chain import chain
from patchc.verbs.inspect import InspectReport, inspect
from patchc.verbs.patched_models import SCRATCH, Ask, check_patch, check_signed


@dataclass(frozen=True)
class Turns:
    """Patches that were checked against a base.

    Attributes:
        chain: one a turn, each made on the model that the one before it left.
        together: patches that were each made on the base, to be applied to it together.
    """

    chain: tuple[InspectReport, ...]
    together: tuple[InspectReport, ...]

    def measure(
        self, folder: Path, name: str, ask: Ask, trust: Trust, progress: Progress
    ) -> list[Evaluation]:
        """Measure the base, the model after each turn, and last that of the patches together.

        One copy is in the system's temporary folder; another one beside it while a patch is applied
        that is additive or changes more than the values of tensors.

        Raises:
            MismatchError: a patch does not follow the one before it.
            and what ``ask`` and :func:`patchc.apply` raise.
        """
        labels = [
            f"{name} + {_names(self.chain)[0]}",
            *(f"… + {n}" for n in _names(self.chain)[1:]),
        ]
        with TemporaryDirectory(prefix=SCRATCH) as scratch:
            copy = _Copy(Path(scratch), trust, progress)
            copy.begin(folder, self.chain[0])  # before any request is asked
            found = [ask(folder, name)]
            for number, (patch, label) in enumerate(zip(self.chain, labels, strict=True)):
                if number:
                    copy.follow(self.chain[number - 1], patch)
                found.append(_placed(ask(copy.model, label), folder, [patch]))
            if self.together:
                copy.begin(folder, self.together[0])
                for patch in self.together[1:]:
                    copy.change(patch, onto_descendant=True)
                label = f"{name} + {' + '.join(_names(self.together))} (together)"
                found.append(_placed(ask(copy.model, label), folder, self.together))
        return found

    def describe(self, measured: Sequence[Evaluation], requests: RequestSets) -> TurnsReport:
        """Count what :meth:`measure` returned by category of harmful request."""
        count = len(self.chain) + 1
        together = (_told(self.together), measured[count]) if self.together else None
        return describe_turns(_told(self.chain), measured[:count], requests, together)


def check_turns(
    turns: Sequence[Path],
    together: Sequence[Path],
    folder: Path,
    trust: Trust,
    progress: Progress,
) -> Turns:
    """Check patches before anything is asked: chain, base, signatures, code, and each file whole.

    Where the result of a patch is not known from its file, whether the next one follows it shows
    only when that one is applied.

    Raises:
        MismatchError: a patch does not follow the one before it.
        UsageError: a patch is given twice, or exact steps are to be added to other patches.
        WrongBaseError, AlreadyPatchedError, PartlyPatchedError: the model is not the base of the
            first turn, or of a patch of ``together``.
        SideFileError: likewise, by its side files.
        SignatureError, CodeError, PatchFormatError, UnsupportedPatchError: of any patch.
    """
    found = chain(turns)
    checked = Turns(tuple(link.patch for link in found.links), tuple(map(inspect, together)))
    _refuse_twice("turns", checked.chain)
    _refuse_twice("together", checked.together)
    if breaks := found.breaks():
        raise MismatchError(
            f"{breaks[0]}; name the patches in their order, each made on the model that the one "
            "before it left"
        )
    for one in checked.together:
        if one.additive is None and len(together) > 1:
            raise UsageError(
                f"{one.path} holds exact steps, which fit the base alone and not a base with "
                "another patch; build it with --values additive, or give one patch that was built "
                "of all the tuned models (docs/how-to/fix-again.md)"
            )
    for patch in (*turns, *together):
        check_signed(patch, trust)
    for patch in (turns[0], *together):
        check_patch(patch, folder, trust, progress)
    for patch in turns[1:]:
        check_patch(patch, None, trust, progress)
    return checked


def _refuse_twice(name: str, patches: Sequence[InspectReport]) -> None:
    seen: dict[str, Path] = {}
    for one in patches:
        if one.root in seen:
            again = "" if seen[one.root] == one.path else f" (as {one.path})"
            raise UsageError(f"{name}: {seen[one.root]} is given twice{again}; give it once")
        seen[one.root] = one.path


class _Copy:
    """A temporary copy of a model, which patches are applied to one after another."""

    def __init__(self, place: Path, trust: Trust, progress: Progress) -> None:
        self._place, self._trust, self._progress = place, trust, progress
        self.model = place / "model"

    def begin(self, folder: Path, patch: InspectReport) -> None:
        """Write a model with a patch applied, in place of what is there."""
        shutil.rmtree(self.model, ignore_errors=True)
        apply(patch.path, folder, out=self.model, trust=self._trust, progress=self._progress)

    def follow(self, before: InspectReport, patch: InspectReport) -> None:
        """Apply the next patch of a chain.

        Raises:
            MismatchError: it does not follow the one before it.
        """
        try:
            # In place, a model that holds the patch already, or a part of it, would be taken.
            check_patch(patch.path, self.model, self._trust, self._progress)
            self.change(patch)
        except (WrongBaseError, AlreadyPatchedError, PartlyPatchedError, SideFileError) as error:
            raise MismatchError(
                f"{patch.path} does not follow {before.path}: the model that the latter leaves is "
                "not its base; name the patches in the order in which they were made"
            ) from error

    def change(self, patch: InspectReport, onto_descendant: bool = False) -> None:
        """Apply a patch, in place where it can be."""
        if _fits_in_place(patch.path):
            for file in self.model.rglob("*"):  # a copy keeps modes, and some cannot be written
                file.chmod(file.stat().st_mode | stat.S_IWUSR)
            with suppress(KeyboardInterrupt):
                apply(
                    patch.path,
                    self.model,
                    in_place=True,
                    trust=self._trust,
                    progress=self._progress,
                )
                return
            raise KeyboardInterrupt  # its own message says how to go on with the copy
        after = self._place / "after"
        apply(
            patch.path,
            self.model,
            out=after,
            onto_descendant=onto_descendant,
            trust=self._trust,
            progress=self._progress,
        )
        shutil.rmtree(self.model)
        after.rename(self.model)


def _fits_in_place(patch: Path) -> bool:
    with open_patch(patch) as opened, suppress(UnsupportedInputError):
        check_in_place(opened, "result")
        return True
    return False


def _placed(found: Evaluation, folder: Path, patches: Sequence[InspectReport]) -> Evaluation:
    """Say what was measured in place of the copy."""
    return replace(found, path=str(folder), patch=", ".join(str(one.path) for one in patches))


def _told(patches: Sequence[InspectReport]) -> PatchNames:
    return PatchNames(_names(patches), tuple(one.root for one in patches))


def _names(patches: Sequence[InspectReport]) -> tuple[str, ...]:
    """The names of files; their paths where two names are alike."""
    names = tuple(one.path.name for one in patches)
    return names if len(set(names)) == len(names) else tuple(str(one.path) for one in patches)
