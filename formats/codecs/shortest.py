"""Chooses the codec that makes the shortest body of a chunk's exact steps."""

from __future__ import annotations

from patchc.formats.codecs import CONDITIONAL, RICE
from patchc.formats.codecs.conditional.encode.encoder import ChunkEncoder
from patchc.formats.codecs.protocol import Coding, ExactChanges
from patchc.formats.codecs.rice import least_bits

_MANY = 4096
"""With so many changes, the header of each further group does not count."""


def encode_shortest(changes: ExactChanges) -> tuple[int, bool, Coding]:
    """Code the changes of a chunk, which may stand in clusters that only "rice" adapts to.

    Where many changes were selected inside masks, no other way is tried.

    Returns:
        The codec's id, whether the body refers to the groups, and the body.
    """
    grouped, word_bits = changes.groups is not None, changes.dtype.word_bits
    positions, steps = changes.positions, changes.steps
    encoder = ChunkEncoder(changes)
    inside = encoder.encode(grouped)
    if grouped and len(positions) >= _MANY:
        return CONDITIONAL.id, True, inside
    codec, best = CONDITIONAL.id, encoder.encode(False) if grouped else inside
    if 8 * len(best.body) > least_bits(positions, steps, word_bits):
        plain = RICE.encode(positions, steps, len(changes.words), word_bits)
        if len(plain.body) < len(best.body):
            codec, best = RICE.id, plain
    if grouped and len(inside.body) < len(best.body):
        return CONDITIONAL.id, True, inside
    return codec, False, best
