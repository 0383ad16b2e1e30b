"""The retention masks inside which a selection lies, as a patch file refers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patchc.formats import RetentionMask, TensorMasks
from patchc.formats.container.retention_masks import KEEP_ALL, MAX_MASKS


def tensor_masks(masks: Mapping[str, Sequence[RetentionMask]]) -> TensorMasks:
    """Put the masks of all tensors into one table.

    A tensor has none where one of its masks keeps everything, since a change may then lie anywhere,
    where they keep nothing, and where they find no room in the table any more.

    Args:
        masks: by the tensor's name, the masks of its components; any of them may keep a change.
    """
    table: dict[RetentionMask, int] = {}
    rows = {}
    for tensor, own in masks.items():
        if not all(0 < mask.threshold < KEEP_ALL for mask in own):
            continue
        fresh = dict.fromkeys(mask for mask in own if mask not in table)
        if len(table) + len(fresh) > MAX_MASKS:
            continue
        table |= {mask: len(table) + number for number, mask in enumerate(fresh)}
        rows[tensor] = sum(1 << table[mask] for mask in own)
    return TensorMasks(tuple(table), rows)
