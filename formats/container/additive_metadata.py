"""Metadata of an additive patch: its value type, and its components with their scales.

SPEC.md, section 4.4. Metadata may be hostile, and is checked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from patchc.dtypes import MERGEABLE
from patchc.errors import PatchFormatError, UnsupportedPatchError
from patchc.formats.codecs import have_trait
from patchc.formats.codecs.additive_values import AdditiveComponent, AdditiveValues, ValueType
from patchc.formats.container.index import PatchIndex

METADATA_KEY = "additive"
MAX_COMPONENTS = 16
MAX_COMPONENT_NAME = 64
VALUE_TYPES: tuple[ValueType, ...] = get_args(ValueType)

_LARGEST_FP32 = (2 - 2**-23) * 2.0**127
_MOST_ENTRIES = 2**62


def parse_additive(metadata: Mapping[str, Any]) -> AdditiveValues:
    """Check and read the metadata of a patch with the feature ``additive``.

    Raises:
        PatchFormatError: a field is missing, of the wrong type or out of range.
        UnsupportedPatchError: an unknown value type.
    """
    content = _object(metadata.get(METADATA_KEY), "key 'additive'")
    value_type = content.get("value_type")
    if not isinstance(value_type, str):
        raise PatchFormatError("the metadata's additive value_type is missing or not a text")
    if value_type not in VALUE_TYPES:
        raise UnsupportedPatchError(
            f"additive values of type {value_type[:80]!r} are not known; update patchc"
        )
    listed = content.get("components")
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_COMPONENTS:
        raise PatchFormatError(
            f"the metadata does not list 1 to {MAX_COMPONENTS} additive components"
        )
    components = tuple(map(_component, listed))
    if len({component.name for component in components}) != len(components):
        raise PatchFormatError("the metadata lists an additive component twice")
    return AdditiveValues(value_type, components)


def check_additive(index: PatchIndex) -> None:
    """Check the index of a patch with the feature ``additive``.

    Raises:
        PatchFormatError: a chunk holds something else, or changes a tensor that cannot be merged
            into; or a result is promised.
    """
    if not np.all(have_trait(index.codecs, "is_additive")):
        raise PatchFormatError("the index mixes additive chunks with others")
    if (index.result_digest + index.result_digests).strip(b"\0"):
        raise PatchFormatError("the index of an additive patch promises a result")
    for tensor in index.tensors.values():
        if tensor.chunks and tensor.dtype.name not in MERGEABLE:
            raise PatchFormatError(
                f"tensor {tensor.name!r} is {tensor.dtype.name}, to which nothing can be added; "
                f"additive chunks are for {', '.join(MERGEABLE)}"
            )


def _component(content: object) -> AdditiveComponent:
    fields = _object(content, "component of key 'additive'")
    name, scale, entries = (fields.get(key) for key in ("name", "scale", "entries"))
    if not isinstance(name, str) or not 0 < len(name) <= MAX_COMPONENT_NAME:
        raise PatchFormatError("an additive component's name is missing, empty or too long")
    if not name.isprintable():
        raise PatchFormatError(f"the additive component's name {name!r} is not printable")
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise PatchFormatError(f"additive component {name!r}: its scale is missing or no number")
    if not abs(scale) <= _LARGEST_FP32:
        raise PatchFormatError(f"additive component {name!r}: its scale is no finite fp32 number")
    if type(entries) is not int or not 0 <= entries <= _MOST_ENTRIES:
        raise PatchFormatError(f"additive component {name!r}: its entries are no count")
    return AdditiveComponent(name, float(scale), entries)


def _object(content: object, what: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise PatchFormatError(f"the metadata's {what} is missing or not an object")
    return content
