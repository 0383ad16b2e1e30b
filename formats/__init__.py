"""The patch file: its container, its index and its codecs. ``SPEC.md`` here is the authority."""

from patchc.formats.index import ChunkRecord, PatchIndex, TensorRecord
from patchc.formats.reader import Patch, open_patch
from patchc.formats.writer import EncodedChunk, PatchWriter, encode_chunk

__all__ = [
    "ChunkRecord",
    "EncodedChunk",
    "Patch",
    "PatchIndex",
    "PatchWriter",
    "TensorRecord",
    "encode_chunk",
    "open_patch",
]
