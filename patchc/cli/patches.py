"""Facts about a patch that are printed when it is planned, written or inspected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchc.cli.output import size
from patchc.formats.change_bits import ChangeBits

if TYPE_CHECKING:
    from patchc.recipe import MergeRecipe, Recipe
    from patchc.verbs.build_plan import BuildPlan
    from patchc.verbs.patch_reports import PatchReport


def plan_facts(plan: BuildPlan, recipe: Recipe | MergeRecipe) -> dict[str, object]:
    """Describe what a build selects and needs."""
    return {
        "recipe": ", ".join(f"{key} {value}" for key, value in recipe.to_json().items()),
        "candidates": f"{len(plan.candidates)} tensors, {plan.candidate_words:,} of "
        f"{plan.model_words:,} entries",
        "expected density": f"at most {plan.density:.4%} of the model",
        "expected size": f"about {size(plan.patch_bytes)}",
        "expected memory": f"about {size(plan.memory_bytes)}",
        "bytes to read": size(plan.read_bytes),
    }


def patch_facts(patch: PatchReport) -> dict[str, object]:
    """Describe a written patch: size, density, bits per changed entry, root."""
    return {
        "size": size(patch.size),
        "changed": f"{patch.entries:,} of {patch.words:,} entries ({patch.density:.4%})",
        **bits_facts(
            patch.size, patch.body_bytes, patch.entries, patch.coded, patch.entropy, patch.masks
        ),
        "root": patch.root,
    }


def bits_facts(
    nbytes: int,
    body_bytes: int,
    entries: int,
    coded: ChangeBits | None,
    entropy: ChangeBits | None,
    masks: int,
) -> dict[str, object]:
    """Describe the bits per changed entry: positions, values, the rest of the file, and entropy.

    Args:
        nbytes, body_bytes: of the file, and of the coded changes in it.
        entries: changed entries.
        coded: bits of positions and values; None uses the bodies instead.
        entropy: the lower bound, or None.
        masks: number of retention masks in the patch; the bound takes them as given.
    """
    if not entries:
        return {"bits per change": "-"}
    whole = 8 * nbytes / entries
    if coded and coded.total:
        parts = _split(coded, entries)
        framing = whole - coded.total / entries
    else:
        parts = f"bodies {8 * body_bytes / entries:.2f}"
        framing = whole - 8 * body_bytes / entries
    facts: dict[str, object] = {
        "bits per change": f"{whole:.2f} (whole file): {parts}, framing {framing:.2f}"
    }
    if entropy and entropy.total:
        bound = entropy.total / entries
        given = "tensor, exponent and masks" if masks else "tensor and exponent"
        facts["entropy"] = (
            f"{bound:.2f} bits per change ({_split(entropy, entries)}), given {given}; the file "
            f"takes {whole / bound:.3g} times that"
        )
    return facts


def _split(bits: ChangeBits, entries: int) -> str:
    return f"positions {bits.positions / entries:.2f}, values {bits.values / entries:.2f}"
