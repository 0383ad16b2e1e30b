"""What build and diff print of a written patch."""

from __future__ import annotations

from patchc.cli.output import size
from patchc.stream.compile import CompiledPatch


def patch_facts(patch: CompiledPatch) -> dict[str, object]:
    """Size, density, bits per changed entry and identity, by name."""
    density = patch.entries / patch.words if patch.words else 0.0
    bits = f"{8 * patch.size / patch.entries:.2f}" if patch.entries else "-"
    return {
        "size": size(patch.size),
        "changed": f"{patch.entries:,} of {patch.words:,} entries ({density:.4%})",
        "bits per change": f"{bits} (whole file)",
        "root": patch.root.hex(),
    }
