"""Codecs of chunk bodies, by id. Ids are never reused (SPEC.md, section 6)."""

from patchc.formats.codecs.additive import ADDITIVE_ID, ComponentEntries, ValueType
from patchc.formats.codecs.conditional.decode.decoder import CONDITIONAL_ID
from patchc.formats.codecs.protocol import Codec
from patchc.formats.codecs.rice import RICE

CODECS: dict[int, Codec] = {RICE.id: RICE}
"""Codec id → codec of exact steps that needs no words; additive and conditional are apart."""

STANDALONE = (RICE.id, ADDITIVE_ID)
"""Ids of the codecs whose bodies decode without the words that they apply to."""

__all__ = [
    "ADDITIVE_ID",
    "CODECS",
    "CONDITIONAL_ID",
    "RICE",
    "STANDALONE",
    "Codec",
    "ComponentEntries",
    "ValueType",
]
