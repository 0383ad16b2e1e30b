"""Codec 3, "conditional": changes coded given the words that they apply to (SPEC.md, section 6.4).

Small weights change before large ones, and by more steps. So a word's exponent tells how likely it
changes, and how far.

- Exponents that behave alike form a *class*, in each group of words that the retention masks make
  (``model/chunk_model.py``). Words that change inside their class, almost all, are coded by class.
  The others are coded in wider *populations*: both sides of an edge between classes, the lowest
  classes, or all words. Base and result both tell a word's population, so bodies decode both ways.
- In each population, the changes are coded as *gaps*, the unchanged words between them, and as
  *steps*. Gaps are nearly geometric, and one small number, the *level*, gives all their frequencies
  (``model/levels.py``). Steps are tokens with a table of frequencies (``model/step_tokens.py``).
- Levels, tables and classes are the chunk's own, stated in its header (``model/header.py``).
- An entropy coder, rANS, makes one number of all symbols (``model/rans.py``).

The encoder (``encode/encoder.py``) chooses the classes and tables with the shortest body. The
decoder (``decode/decoder.py``) pops the gaps and steps of each population, then finds the words
that they mean in one pass over the chunk (``decode/place_changes.py``).
"""

from __future__ import annotations

import numpy as np

from patchc.dtypes import Words
from patchc.errors import PatchFormatError, UsageError
from patchc.formats.codecs.conditional.decode.decoder import decode_changes
from patchc.formats.codecs.protocol import (
    ChunkBody,
    Codec,
    Coding,
    ExactChanges,
    Kept,
    Positions,
    Steps,
)
from patchc.sides import Side


class ConditionalCodec(Codec):
    """Codes exact steps by the exponents of the words that they apply to.

    A hostile body may decode to changes that no encoder coded: the digest of the result tells.
    """

    id = 3
    name = "conditional"
    needs_words = True
    takes_masks = True

    def encode(self, changes: ExactChanges) -> Coding:
        """Code a chunk, by its groups where it has them."""
        # Commands that only read patches start sooner without the encoder.
        from patchc.formats.codecs.conditional.encode.encoder import ChunkEncoder

        return ChunkEncoder(changes).encode(changes.groups is not None)

    def decode(
        self, chunk: ChunkBody, words: Words | None = None, target: Side = "result"
    ) -> tuple[Positions, Steps]:
        """Decode a chunk; see :meth:`Codec.decode`."""
        words = _checked(chunk, words)
        positions, steps = np.empty(chunk.entries, np.uint32), np.empty(chunk.entries, np.int64)
        none = np.empty(0, words.dtype)
        decode_changes(chunk, words, target, positions, steps, none, none)
        return positions, steps

    def change_words(
        self, chunk: ChunkBody, words: Words, target: Side, kept: Kept | None = None
    ) -> None:
        """Change a chunk without listing its changes; see :meth:`Codec.change_words`."""
        words = _checked(chunk, words)
        positions, before = kept or (np.empty(0, np.uint32), np.empty(0, words.dtype))
        decode_changes(chunk, words, target, positions, np.empty(0, np.int64), words, before)


def _checked(chunk: ChunkBody, words: Words | None) -> Words:
    if words is None or len(words) != chunk.words:
        raise UsageError("it is coded given the words that it applies to; pass the chunk's words")
    if not 0 < chunk.entries <= len(words):
        raise PatchFormatError(f"its record says {chunk.entries} changes of {len(words)} words")
    return words
