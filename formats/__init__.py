"""The patch file: its container, its index and its codecs. ``SPEC.md`` here is the authority."""

from patchc.formats.codecs.additive_values import (
    AdditiveComponent,
    AdditiveValues,
    ComponentEntries,
    ValueType,
)
from patchc.formats.container.envelope import Envelope, EnvelopeSignature, parse_envelope
from patchc.formats.container.file_changes import EncodedFile, FileRecord, encode_file
from patchc.formats.container.index import ChunkRecord, PatchIndex
from patchc.formats.container.reader import Patch, open_patch
from patchc.formats.container.retention_masks import RetentionMask, TensorMasks
from patchc.formats.container.sealing import write_with_metadata, write_with_signatures
from patchc.formats.container.statement import Statement
from patchc.formats.container.tensors import TensorPair, TensorRecord, may_refer, may_resize
from patchc.formats.container.writer import EncodedChunk, PatchWriter, encode_chunk, encode_deltas

__all__ = [
    "AdditiveComponent",
    "AdditiveValues",
    "ChunkRecord",
    "ComponentEntries",
    "EncodedChunk",
    "EncodedFile",
    "Envelope",
    "EnvelopeSignature",
    "FileRecord",
    "Patch",
    "PatchIndex",
    "PatchWriter",
    "RetentionMask",
    "Statement",
    "TensorMasks",
    "TensorPair",
    "TensorRecord",
    "ValueType",
    "encode_chunk",
    "encode_deltas",
    "encode_file",
    "may_refer",
    "may_resize",
    "open_patch",
    "parse_envelope",
    "write_with_metadata",
    "write_with_signatures",
]
