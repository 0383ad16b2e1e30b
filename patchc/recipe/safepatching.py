"""The parameters of a SafePatching build: validated, serialised into the patch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from patchc.recipe import checks


@dataclass(frozen=True)
class Recipe:
    """How a SafePatching patch is selected and scaled (arXiv 2405.13820).

    Attributes:
        retain: probability p that an entry is retained, per component, in [0, 1].
        top_se: share a of a tensor's entries taken by SE score among the retained, in [0, 1].
        top_osm: share b taken by OSM score among the retained, in [0, 1].
        alpha: scale α of the safety-enhancement delta; finite.
        beta: scale β of the over-safety-mitigation delta; finite.
        seed: 64-bit seed of the retention draws.
        include: regular expressions; only matching tensors take part (empty: all with scores).
        exclude: regular expressions; matching tensors take no part.

    The defaults are our own, from the sweep recorded in ``docs/defaults.md``; the paper gives none.

    Raises:
        UsageError: a parameter is of the wrong type or out of range.
    """

    retain: float = 0.3
    top_se: float = 0.1
    top_osm: float = 0.1
    alpha: float = 8.0
    beta: float = 16.0
    seed: int = 0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("retain", "top_se", "top_osm"):
            object.__setattr__(self, name, checks.share(name, getattr(self, name)))
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, checks.scale(name, getattr(self, name)))
        checks.seed(self.seed)
        for name in ("include", "exclude"):
            object.__setattr__(self, name, checks.expressions(name, getattr(self, name)))

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values, for a patch's provenance."""
        return asdict(self)

    def with_changes(self, **changes: Any) -> Recipe:
        """A copy with those of ``changes`` that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})
