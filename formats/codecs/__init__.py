"""Codecs of chunk bodies, by id. Ids are never reused (SPEC.md, section 6)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from patchc.formats.codecs.additive import AdditiveCodec
from patchc.formats.codecs.conditional import ConditionalCodec
from patchc.formats.codecs.protocol import Codec
from patchc.formats.codecs.rice import RiceCodec

RICE = RiceCodec()
ADDITIVE = AdditiveCodec()
CONDITIONAL = ConditionalCodec()

CODECS: dict[int, Codec] = {codec.id: codec for codec in (RICE, ADDITIVE, CONDITIONAL)}
"""Codec id → codec."""

Trait = Literal["needs_words", "takes_masks", "is_additive"]


def have_trait(ids: NDArray[np.uint8], trait: Trait, value: bool = True) -> NDArray[np.bool_]:
    """Whether each of these ids stands for a known codec whose trait has this value."""
    return np.isin(ids, [codec.id for codec in CODECS.values() if getattr(codec, trait) == value])


__all__ = ["ADDITIVE", "CODECS", "CONDITIONAL", "RICE", "Codec", "Trait", "have_trait"]
