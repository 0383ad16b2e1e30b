"""Additive values of a patch: how they are stored, and the components that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ValueType = Literal["bf16", "int8"]


@dataclass(frozen=True)
class ComponentEntries:
    """What one component adds to a chunk, as stored.

    Attributes:
        component: the component's number in the patch.
        positions: words of the chunk, strictly increasing; at least one.
        values: one per entry: BF16 words (uint16), or numbers from −127 to 127 (int8).
        absmax: for int8, an fp32 for each block of 256 entries; empty for bf16.
    """

    component: int
    positions: NDArray[np.uint32]
    values: NDArray[np.integer]
    absmax: NDArray[np.float32]


@dataclass(frozen=True)
class AdditiveComponent:
    """One of the deltas that are added.

    Attributes:
        name: "se" and "osm" in a SafePatching build.
        scale: the stored scale, α or β; its fp32 rounding is used.
        entries: entries that it has in the whole patch.
    """

    name: str
    scale: float
    entries: int


@dataclass(frozen=True)
class AdditiveValues:
    """The values of an additive patch.

    Attributes:
        value_type: how they are stored, "bf16" or "int8".
        components: what is added, in this order.
    """

    value_type: ValueType
    components: tuple[AdditiveComponent, ...]

    def to_json(self) -> dict[str, Any]:
        """The values of the metadata's key ``additive``."""
        return {
            "value_type": self.value_type,
            "components": [vars(component) for component in self.components],
        }


NO_VALUES = AdditiveValues("bf16", ())
"""Those of a patch with exact steps."""
