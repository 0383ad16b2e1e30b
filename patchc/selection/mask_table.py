"""Puts the retention masks of a build into the table of its patch file.

All selected entries lie inside the masks, which makes their positions cheaper to code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patchc.formats import RetentionMask, TensorMasks
from patchc.formats.container.retention_masks import MAX_MASKS
from patchc.kernels.philox import KEEP_ALL


def tensor_masks(masks: Mapping[str, Sequence[RetentionMask]]) -> TensorMasks:
    """Put the masks of all tensors into one table.

    A tensor gets none if one of its masks retains everything or nothing, or if the table is full.

    Args:
        masks: tensor name → the masks of its components; a change lies inside one of them.
    """
    table: dict[RetentionMask, int] = {}
    by_tensor = {}
    for tensor, own in masks.items():
        if not all(0 < mask.threshold < KEEP_ALL for mask in own):
            continue
        fresh = dict.fromkeys(mask for mask in own if mask not in table)
        if len(table) + len(fresh) > MAX_MASKS:
            continue
        table |= {mask: len(table) + number for number, mask in enumerate(fresh)}
        by_tensor[tensor] = sum(1 << table[mask] for mask in own)
    return TensorMasks(tuple(table), by_tensor)
