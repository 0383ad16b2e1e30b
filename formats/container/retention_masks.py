"""Seeded retention masks: their table, to which chunks refer, and the groups of words that they
make (SPEC.md, sections 4.6 and 6.4.6).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from patchc.errors import PatchFormatError, UnsupportedInputError
from patchc.formats.codecs.conditional.decode.decoder import CONDITIONAL_ID
from patchc.formats.codecs.conditional.model.classes import MOST_GROUPS, Groups
from patchc.formats.container.column_codec import ColumnReader
from patchc.kernels.philox.cpu import add_kept, retention_stream

MAX_MASKS = 16
MAX_COMPONENT_BYTES = 64
KEEP_ALL = 1 << 32
_MOST_APART = 2

_DRAWS = struct.Struct("<QQ")


@dataclass(frozen=True)
class RetentionMask:
    """A mask that its seed regenerates, so that a patch need not hold it.

    Attributes:
        component: the name that enters the draws, "se" and "osm" in a SafePatching build.
        seed: 64 bits.
        threshold: an entry is kept where its 32-bit draw is below; 0 keeps none, 2³² all.
    """

    component: str
    seed: int
    threshold: int

    @property
    def share(self) -> float:
        """The share of entries that it keeps, on average."""
        return self.threshold / KEEP_ALL


@dataclass(frozen=True)
class TensorMasks:
    """The masks in which the changes of a model's tensors were selected.

    Attributes:
        table: all masks.
        rows: the masks of a tensor, by its name: bit i for row i of the table.
    """

    table: tuple[RetentionMask, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)

    def draw(self, tensor: str, first: int, count: int) -> Groups | None:
        """As :func:`draw_groups`, with the tensor's own masks."""
        return draw_groups(self.table, self.rows.get(tensor, 0), tensor, first, count)


def draw_groups(
    table: Sequence[RetentionMask], rows: int, tensor: str, first: int, count: int
) -> Groups | None:
    """The groups into which masks divide a run of a tensor's words.

    With one mask or two, bit m says whether mask m keeps the word; with more, the group is the
    number of masks that keep it, 3 at most.

    Args:
        table: of the patch file.
        rows: the masks: bit i for row i of the table.
        tensor: the name that enters the draws.
        first: number of the first word in the tensor; a multiple of 4.
        count: words.

    Returns:
        Shape (count,); None where there are no masks.
    """
    masks = [mask for row, mask in enumerate(table) if rows >> row & 1]
    if not masks:
        return None
    groups = np.zeros(count, np.uint8)
    counted = len(masks) > _MOST_APART
    for place, mask in enumerate(masks):
        weight = 1 if counted else 1 << place
        add_kept(
            np.uint64(mask.seed), np.uint64(retention_stream(mask.component, tensor)),
            np.uint64(mask.threshold), first, np.uint8(weight), groups,
        )  # fmt: skip
    return np.minimum(groups, MOST_GROUPS - 1, out=groups) if counted else groups


def check_references(
    rows: NDArray[np.unsignedinteger], codecs: NDArray[np.uint8], masks: int
) -> None:
    """Refuse chunks that refer to masks which are not there, or which their codec does not take.

    Raises:
        PatchFormatError: there is such a chunk.
    """
    if np.any(rows.astype(np.int64) >> masks):
        raise PatchFormatError("a chunk refers to a retention mask that is not in the index")
    if np.any(rows[codecs != CONDITIONAL_ID]):
        raise PatchFormatError("a chunk refers to a retention mask and its codec takes none")


def pack_masks(masks: Sequence[RetentionMask]) -> bytes:
    """The table's bytes."""
    rows = [bytes([len(masks)])]
    for mask in masks:
        name = mask.component.encode()
        rows += [bytes([len(name)]), name, _DRAWS.pack(mask.seed, mask.threshold)]
    return b"".join(rows)


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
