"""The reports of the verbs that write a patch: build, diff and fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchc.checkpoint.left_aside import LeftAside
from patchc.compiler.pipeline import CompiledPatch
from patchc.formats.change_bits import ChangeBits
from patchc.patching.code_files import CodeFile
from patchc.recipe import MergeRecipe, Recipe
from patchc.signing.trust import PolicyAnswer
from patchc.verbs.build_plan import BuildPlan
from patchc.verbs.updates import UpdateReport


@dataclass(frozen=True)
class PatchReport:
    """A patch that was written: what :class:`BuildReport` and the others have in common.

    Attributes:
        out: the patch file.
        root: its root digest, which identifies the file, in hexadecimal.
        size: its size in bytes.
        body_bytes: bytes of its coded changes.
        entries: entries that it changes; an update's, for both directions.
        words: entries of the model; an update's, of the base and of what only the result has.
        base_digest: the digest of the base, in hexadecimal.
        result_digest: the digest of the patched model; None for an additive patch, which promises
            no result.
        coded: the bits of its changes by what they code; None if they are not known.
        entropy: the lower bound for the bits of its changes; None if it is not known.
        masks: number of retention masks inside which changes are coded.
    """

    out: Path
    root: str
    size: int
    body_bytes: int
    entries: int
    words: int
    base_digest: str
    result_digest: str | None
    coded: ChangeBits | None
    entropy: ChangeBits | None
    masks: int

    @property
    def density(self) -> float:
        """Share of the model's entries that change."""
        return self.entries / self.words if self.words else 0.0


@dataclass(frozen=True)
class BuildReport(PatchReport):
    """A finished build, or with ``dry_run`` its plan.

    In a dry run nothing is written: the fields that :class:`PatchReport` lists are then empty, 0 or
    None, except for ``out``.

    Attributes:
        recipe: the method and its parameters.
        plan: what was known before the build.
        dry_run: whether nothing was written.
        notes: what could not be checked about the components, in words.
        left_aside: weight files in the base's folder that are not the model, and why.
    """

    recipe: Recipe | MergeRecipe
    plan: BuildPlan
    dry_run: bool
    notes: tuple[str, ...] = ()
    left_aside: tuple[LeftAside, ...] = ()


@dataclass(frozen=True)
class DiffReport(PatchReport):
    """The patch that a diff wrote, described as by :class:`PatchReport`.

    Attributes:
        code: the files in it that a loader or an interpreter would run, so that apply or revert
            takes it only where code is allowed; on the first rank.
        update: what it changes besides the words of tensors, and the counts of either side; on the
            first rank. None for a patch of weights alone.
        beside: the safetensors files beside the model's own that it carries, of either folder.
        left_aside: the weight files of either folder that it does not carry, and why.
        suggested_renames: rules for ``rename`` under which most of the model would cost its changes
            alone; empty where nothing seems renamed and changed, or rules were given.
    """

    code: tuple[CodeFile, ...] = ()
    update: UpdateReport | None = None
    beside: tuple[str, ...] = ()
    left_aside: tuple[LeftAside, ...] = ()
    suggested_renames: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoldReport(PatchReport):
    """The patch that a fold wrote, described as by :class:`PatchReport`.

    Attributes:
        folded: root digests of the patches that it takes the place of, in their order.
        policies: the policies that each of these satisfies.
    """

    folded: tuple[str, ...]
    policies: tuple[PolicyAnswer, ...] = ()


def facts_of(out: Path, patch: CompiledPatch | None) -> dict[str, Any]:
    """The fields of a :class:`PatchReport`; None is a patch that is only planned."""
    if patch is None:
        patch = CompiledPatch(b"", 0, 0, 0, 0, b"", None)
    return vars(patch) | {
        "out": out,
        "root": patch.root.hex(),
        "base_digest": patch.base_digest.hex(),
        "result_digest": None if patch.result_digest is None else patch.result_digest.hex(),
    }
