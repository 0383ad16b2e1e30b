"""The table of seeded retention masks, to which chunks may refer (SPEC.md, section 4.6)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from patchc.errors import PatchFormatError, UnsupportedInputError
from patchc.formats.columns import Columns

MAX_MASKS = 16
MAX_COMPONENT_BYTES = 64
KEEP_ALL = 1 << 32

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


def read_masks(columns: Columns) -> tuple[RetentionMask, ...]:
    """Read and check the table.

    Raises:
        PatchFormatError: too many masks, or one with a field out of range.
    """
    count = columns.take(1)[0]
    if count > MAX_MASKS:
        raise PatchFormatError(f"the index declares {count} retention masks, above the cap")
    return tuple(_read_mask(columns) for _ in range(count))


def _read_mask(columns: Columns) -> RetentionMask:
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
