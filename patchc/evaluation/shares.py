"""Where the selected entries lie: shares by layer and by module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from patchc.select.candidates import layer_of, module_of

Selected = Mapping[str, Mapping[str, int]]
"""Of each tensor, how many entries the top sets ("se", "osm") and their "overlap" hold."""

Shares = dict[str, dict[str, float]]
"""Of each component, the share of its entries in each part of the model."""


def shares_by_layer(selected: Selected) -> Shares:
    """The share of each component's entries, outside the overlap, that lies in each layer."""
    return _shares(selected, layer_of)


def shares_by_module(selected: Selected) -> Shares:
    """The share of each component's entries, outside the overlap, in each kind of module."""
    return _shares(selected, module_of)


def _shares(selected: Selected, part_of: Callable[[str], str]) -> Shares:
    shares: Shares = {}
    components = [name for name in ("se", "osm") if any(name in one for one in selected.values())]
    for component in components:
        counts: dict[str, int] = {}
        for tensor in sorted(selected, key=_natural):
            alone = selected[tensor].get(component, 0) - selected[tensor].get("overlap", 0)
            part = part_of(tensor)
            counts[part] = counts.get(part, 0) + alone
        total = sum(counts.values())
        shares[component] = {part: n / total if total else 0.0 for part, n in counts.items()}
    return shares


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
