"""The tensors of which compact components hold entries, and the size of what a derivation writes.

Both follow from the base's names, dtypes and shapes, and need no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from patchc.checkpoint import Checkpoint
from patchc.derivation.derive_options import DeriveOptions
from patchc.dtypes import WEIGHT_DTYPES
from patchc.kernels.retained_words import BLOCK_WORDS
from patchc.selection.candidates import NameFilter, is_decoder_linear

_NEVER = 50.0
"""A count exceeds the bound that is given here with probability below e⁻⁵⁰."""


def held_tensors(
    base: Checkpoint, scored: Iterable[str], options: DeriveOptions
) -> list[tuple[str, tuple[int, ...]]]:
    """Name the tensors of which a compact component holds entries, with their shapes.

    They are those that have scores. A merge takes every tensor that can be merged, unless all but
    the scored ones are unchanged.
    """
    names = NameFilter(options.include, options.exclude)
    holding = options.holding
    if holding and holding.merge and options.objective != "margin":
        scored = [
            name
            for name, tensor in base.tensors.items()
            if names.matches(name) and tensor.dtype.name in WEIGHT_DTYPES
        ]
    return [(name, base.tensors[name].shape) for name in scored]


def written_bytes(base: Checkpoint, options: DeriveOptions) -> int:
    """At most how many bytes of tensors a derivation writes, over all directions."""
    kinds = 1 + len(options.scores)
    if not options.holding:
        words = sum(tensor.words for tensor in base.tensors.values())
        return 4 * words * kinds * len(options.folders)
    held = held_tensors(base, _scored(base, options), options)
    mean = variance = blocks = 0.0
    for name, _ in held:
        words, share = base.tensors[name].words, options.holding.share(name)
        mean += words * share
        variance += words * share * (1 - share)
        blocks += -(-words // BLOCK_WORDS)
    # Bernstein's inequality.
    above = _NEVER / 3 + math.sqrt((_NEVER / 3) ** 2 + 2 * _NEVER * variance)
    entries = min(math.ceil(mean + above), sum(base.tensors[name].words for name, _ in held))
    return 4 * int(entries * kinds + blocks) * len(options.folders)


def _scored(base: Checkpoint, options: DeriveOptions) -> list[str]:
    """Name the tensors that will be scored, as far as the base alone tells."""
    names = NameFilter(options.include, options.exclude)
    return [
        name
        for name, tensor in base.tensors.items()
        if names.matches(name) and (options.include or is_decoder_linear(name, tensor.shape))
    ]
