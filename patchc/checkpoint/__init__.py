"""Checkpoints in safetensors: one file, or a Hugging Face folder with its shards."""

from patchc.checkpoint.checkpoint import Checkpoint, open_checkpoint
from patchc.checkpoint.header import Shard, TensorInfo
from patchc.checkpoint.in_place_writer import InPlaceWriter
from patchc.checkpoint.quantised import refuse_quantised, refuse_unstated
from patchc.checkpoint.refuse import refuse_adapter_beside, refuse_single_file
from patchc.checkpoint.writer import CheckpointCopy, HeaderError, JoinedCopy

__all__ = [
    "Checkpoint",
    "CheckpointCopy",
    "HeaderError",
    "InPlaceWriter",
    "JoinedCopy",
    "Shard",
    "TensorInfo",
    "open_checkpoint",
    "refuse_adapter_beside",
    "refuse_quantised",
    "refuse_single_file",
    "refuse_unstated",
]
