"""Codecs of chunk bodies, by id. Ids are never reused (SPEC.md, section 6)."""

from patchc.formats.codecs.codec import Codec
from patchc.formats.codecs.rice import RICE

CODECS: dict[int, Codec] = {RICE.id: RICE}
"""Codec id → codec."""

__all__ = ["CODECS", "RICE", "Codec"]
