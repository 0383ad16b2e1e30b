"""Which codec of exact steps a chunk gets: the shorter of the two."""

from __future__ import annotations

from patchc.dtypes import DType
from patchc.formats.codecs.classes import Words
from patchc.formats.codecs.codec import Coding, Positions, Steps
from patchc.formats.codecs.conditional import CONDITIONAL_ID, encode_conditional
from patchc.formats.codecs.rice import RICE, least_bits


def encode_shortest(
    words: Words, positions: Positions, steps: Steps, dtype: DType
) -> tuple[int, Coding]:
    """Code the changes of a chunk, which may stand in clusters that only "rice" adapts to.

    Args:
        words, positions, steps, dtype: as for :func:`encode_conditional`.

    Returns:
        The codec's id, and the body with what its changes take.
    """
    given = encode_conditional(words, positions, steps, dtype)
    if 8 * len(given.body) <= least_bits(positions, steps):
        return CONDITIONAL_ID, given
    plain = RICE.encode(positions, steps, len(words), dtype.word_bits)
    return (CONDITIONAL_ID, given) if len(given.body) <= len(plain.body) else (RICE.id, plain)
