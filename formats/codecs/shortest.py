"""How the exact steps of a chunk are coded: the shortest of the ways."""

from __future__ import annotations

from patchc.dtypes import DType, Words
from patchc.formats.codecs.conditional.decode.decoder import CONDITIONAL_ID
from patchc.formats.codecs.conditional.encode.encoder import ChunkEncoder
from patchc.formats.codecs.conditional.model.classes import Groups
from patchc.formats.codecs.protocol import Coding, Positions, Steps
from patchc.formats.codecs.rice import RICE, least_bits
from patchc.kernels.histograms import Counts

_MANY = 4096
"""Changes beside which the header of each further group is nothing."""


def encode_shortest(
    words: Words,
    positions: Positions,
    steps: Steps,
    dtype: DType,
    groups: Groups | None = None,
    held: Counts | None = None,
) -> tuple[int, bool, Coding]:
    """Code the changes of a chunk, which may stand in clusters that only "rice" adapts to.

    Args:
        words, positions, steps, dtype: as for :class:`ChunkEncoder`.
        groups: those that the masks make in which the changes were selected.
        held: words by group and exponent, as for :class:`ChunkEncoder`.

    Returns:
        The codec's id, whether the body refers to the groups, and the body with what its changes
        take. Where many changes were selected inside masks, no other way is tried.
    """
    encoder = ChunkEncoder(words, positions, steps, dtype, groups, held)
    inside = encoder.encode(groups is not None)
    if groups is not None and len(positions) >= _MANY:
        return CONDITIONAL_ID, True, inside
    codec, best = CONDITIONAL_ID, inside if groups is None else encoder.encode(False)
    if 8 * len(best.body) > least_bits(positions, steps, dtype.word_bits):
        plain = RICE.encode(positions, steps, len(words), dtype.word_bits)
        if len(plain.body) < len(best.body):
            codec, best = RICE.id, plain
    if groups is not None and len(inside.body) < len(best.body):
        return CONDITIONAL_ID, True, inside
    return codec, False, best
