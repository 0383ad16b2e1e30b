"""What is printed of a patch's size, when it is written and when it is inspected."""

from __future__ import annotations

from patchc.cli.output import size
from patchc.stream.compile import CompiledPatch
from patchc.stream.entropy import Entropy


def patch_facts(patch: CompiledPatch) -> dict[str, object]:
    """Size, density, bits per changed entry and identity of a written patch, by name."""
    density = patch.entries / patch.words if patch.words else 0.0
    return {
        "size": size(patch.size),
        "changed": f"{patch.entries:,} of {patch.words:,} entries ({density:.4%})",
        **bits_facts(patch.size, patch.body_bytes, patch.entries, patch.entropy),
        "root": patch.root.hex(),
    }


def bits_facts(
    nbytes: int, body_bytes: int, entries: int, entropy: Entropy | None
) -> dict[str, object]:
    """Bits per changed entry: of the file, its coded bodies and the rest, beside the entropy."""
    if not entries:
        return {"bits per change": "-"}
    whole, body = 8 * nbytes / entries, 8 * body_bytes / entries
    parts = f"bodies {body:.2f}, framing {whole - body:.2f}"
    facts: dict[str, object] = {"bits per change": f"{whole:.2f} (whole file): {parts}"}
    if entropy and entropy.total:
        bound = entropy.total / entries
        facts["entropy"] = (
            f"{bound:.2f} bits per change (positions {entropy.positions / entries:.2f}, values "
            f"{entropy.values / entries:.2f}), given tensor, exponent and masks; the file takes "
            f"{whole / bound:.3g} times that"
        )
    return facts
