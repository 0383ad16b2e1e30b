"""How the exact steps of a chunk are coded: the shortest of the ways."""

from __future__ import annotations

from patchc.dtypes import DType
from patchc.formats.codecs.classes import Groups, Words
from patchc.formats.codecs.codec import Coding, Positions, Steps
from patchc.formats.codecs.conditional import CONDITIONAL_ID, encode_conditional
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
        words, positions, steps, dtype: as for :func:`encode_conditional`.
        groups: those that the masks make in which the changes were selected.
        held: words by group and exponent, as for :func:`encode_conditional`.

    Returns:
        The codec's id, whether the body refers to the groups, and the body with what its changes
        take. Where many changes were selected inside masks, no other way is tried.
    """
    if groups is None:
        return _encode_without(words, positions, steps, dtype, held)
    inside = encode_conditional(words, positions, steps, dtype, groups, held)
    if len(positions) < _MANY:
        together = None if held is None else held.sum(axis=0, keepdims=True)
        other = _encode_without(words, positions, steps, dtype, together)
        if len(other[2].body) <= len(inside.body):
            return other
    return CONDITIONAL_ID, True, inside


def _encode_without(
    words: Words, positions: Positions, steps: Steps, dtype: DType, held: Counts | None
) -> tuple[int, bool, Coding]:
    given = encode_conditional(words, positions, steps, dtype, held=held)
    if 8 * len(given.body) > least_bits(positions, steps, dtype.word_bits):
        plain = RICE.encode(positions, steps, len(words), dtype.word_bits)
        if len(plain.body) < len(given.body):
            return RICE.id, False, plain
    return CONDITIONAL_ID, False, given
