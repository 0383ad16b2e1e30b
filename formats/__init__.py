"""The patch file: its container, its index and its codecs. ``SPEC.md`` here is the authority."""

from patchc.formats.additive import AdditiveComponent, AdditiveValues
from patchc.formats.codecs import ComponentEntries, ValueType
from patchc.formats.files import EncodedFile, FileRecord, encode_file
from patchc.formats.index import ChunkRecord, PatchIndex
from patchc.formats.masks import RetentionMask, TensorMasks
from patchc.formats.reader import Patch, open_patch
from patchc.formats.tensors import OTHER, Side, TensorRecord, TensorRow, may_refer, may_resize
from patchc.formats.writer import EncodedChunk, PatchWriter, encode_chunk, encode_deltas

__all__ = [
    "OTHER",
    "AdditiveComponent",
    "AdditiveValues",
    "ChunkRecord",
    "ComponentEntries",
    "EncodedChunk",
    "EncodedFile",
    "FileRecord",
    "Patch",
    "PatchIndex",
    "PatchWriter",
    "RetentionMask",
    "Side",
    "TensorMasks",
    "TensorRecord",
    "TensorRow",
    "ValueType",
    "encode_chunk",
    "encode_deltas",
    "encode_file",
    "may_refer",
    "may_resize",
    "open_patch",
]
