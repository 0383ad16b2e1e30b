"""The patch file: its container, its index and its codecs. ``SPEC.md`` here is the authority."""

from patchc.formats.additive import AdditiveComponent, AdditiveValues
from patchc.formats.codecs import ComponentEntries, ValueType
from patchc.formats.index import ChunkRecord, PatchIndex, TensorRecord
from patchc.formats.masks import RetentionMask
from patchc.formats.reader import Patch, open_patch
from patchc.formats.writer import EncodedChunk, PatchWriter, encode_chunk, encode_deltas

__all__ = [
    "AdditiveComponent",
    "AdditiveValues",
    "ChunkRecord",
    "ComponentEntries",
    "EncodedChunk",
    "Patch",
    "PatchIndex",
    "PatchWriter",
    "RetentionMask",
    "TensorRecord",
    "ValueType",
    "encode_chunk",
    "encode_deltas",
    "open_patch",
]
