"""Seeded retention masks: the table that chunks refer to, and the groups of words that masks make.

SPEC.md, sections 4.6 and 6.4.6.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchFormatError, UnsupportedInputError
from patchc.formats.codecs import have_trait
from patchc.formats.codecs.conditional.model.chunk_model import MOST_GROUPS
from patchc.formats.codecs.protocol import Groups
from patchc.formats.container.column_codec import ColumnReader
from patchc.kernels.philox import KEEP_ALL, Retention, retention_stream
from patchc.kernels.philox.cpu import add_retained

MAX_MASKS = 16
MAX_COMPONENT_BYTES = 64
_MOST_APART = 2

_DRAWS = struct.Struct("<QQ")


@dataclass(frozen=True)
class RetentionMask:
    """A mask that its seed regenerates, so that a patch does not store it.

    Attributes:
        component: the name that enters the draws, "se" and "osm" in a SafePatching build.
        seed: 64 bits.
        threshold: an entry is retained where its 32-bit draw is below; 0 retains none, 2³² all.
    """

    component: str
    seed: int
    threshold: int

    @property
    def share(self) -> float:
        """The share of entries that it retains, on average."""
        return self.threshold / KEEP_ALL


@dataclass(frozen=True)
class TensorMasks:
    """The masks in which the changes of a model's tensors were selected.

    Attributes:
        table: all masks.
        by_tensor: the masks of a tensor, by its name: bit i for mask i of the table.
    """

    table: tuple[RetentionMask, ...] = ()
    by_tensor: Mapping[str, int] = field(default_factory=dict)

    def draw(self, tensor: str, first: int, count: int) -> Groups | None:
        """Draw groups as :func:`draw_groups` does, by the tensor's own masks."""
        return draw_groups(self.table, self.by_tensor.get(tensor, 0), tensor, first, count)


def draw_groups(
    table: Sequence[RetentionMask], chosen: int, tensor: str, first: int, count: int
) -> Groups | None:
    """Draw the groups into which masks divide a run of a tensor's words.

    With one mask or two, bit m says whether mask m retains the word. With more, the group is the
    number of masks that retain it, 3 at most.

    Args:
        table: of the patch file.
        chosen: the masks to use: bit i for mask i of the table.
        tensor: the name that enters the draws.
        first: number of the first word in the tensor; a multiple of 4.
        count: words in the run.

    Returns:
        Shape (count,); None where there are no masks.
    """
    masks = [mask for i, mask in enumerate(table) if chosen >> i & 1]
    if not masks:
        return None
    groups = np.zeros(count, np.uint8)
    counted = len(masks) > _MOST_APART
    for bit, mask in enumerate(masks):
        weight = 1 if counted else 1 << bit
        stream = retention_stream(mask.component, tensor)
        retention = Retention(mask.seed, stream, mask.threshold)
        add_retained(retention, first, np.uint8(weight), groups)
    return np.minimum(groups, MOST_GROUPS - 1, out=groups) if counted else groups


def check_references(
    chunk_masks: NDArray[np.unsignedinteger], codecs: NDArray[np.uint8], masks: int
) -> None:
    """Refuse chunks that refer to missing masks, or to any where their codec takes none.

    Raises:
        PatchFormatError: there is such a chunk.
    """
    if np.any(chunk_masks.astype(np.int64) >> masks):
        raise PatchFormatError("a chunk refers to a retention mask that is not in the index")
    if np.any(chunk_masks[~have_trait(codecs, "takes_masks")]):
        raise PatchFormatError("a chunk refers to a retention mask and its codec takes none")


def pack_masks(masks: Sequence[RetentionMask]) -> bytes:
    """The table's bytes."""
    data = bytes([len(masks)])
    for mask in masks:
        name = mask.component.encode()
        data += bytes([len(name)]) + name + _DRAWS.pack(mask.seed, mask.threshold)
    return data


def check_masks(masks: Sequence[RetentionMask]) -> None:
    """Refuse masks that no reader would take.

    Raises:
        UnsupportedInputError: too many, or one with a field out of range.
    """
    if len(masks) > MAX_MASKS:
        raise UnsupportedInputError(f"a patch file holds {MAX_MASKS} retention masks at most")
    for mask in masks:
        if not _is_sound(mask) or not 0 <= mask.seed < 1 << 64:
            raise UnsupportedInputError(f"a patch file cannot hold the retention mask {mask}")


def read_masks(columns: ColumnReader) -> tuple[RetentionMask, ...]:
    """Read and check the table.

    Raises:
        PatchFormatError: too many masks, or one with a field out of range.
    """
    count = columns.take(1)[0]
    if count > MAX_MASKS:
        raise PatchFormatError(f"the index declares {count} retention masks, above the cap")
    return tuple(_read_mask(columns) for _ in range(count))


def _read_mask(columns: ColumnReader) -> RetentionMask:
    encoded = columns.take(columns.take(1)[0])
    try:
        name = encoded.decode()
    except UnicodeDecodeError as error:
        raise PatchFormatError("a retention mask's component is not UTF-8") from error
    mask = RetentionMask(name, *_DRAWS.unpack(columns.take(_DRAWS.size)))
    if not _is_sound(mask):
        raise PatchFormatError(f"the index has an unacceptable retention mask: {mask}")
    return mask


def _is_sound(mask: RetentionMask) -> bool:
    if not mask.component.isprintable() or not 0 <= mask.threshold <= KEEP_ALL:
        return False
    return 0 < len(mask.component.encode()) <= MAX_COMPONENT_BYTES
