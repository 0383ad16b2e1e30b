"""Where the selected entries lie: shares by layer and by module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from patchc.selection.candidates import layer_of, module_of, natural_order

Selected = Mapping[str, Mapping[str, int]]
"""Of each tensor, the statistics of its patch: of SafePatching, how many entries the top sets
("se", "osm") and their "overlap" hold and how many each component is applied to ("se applied"); of
a merge, how many of each model ("model-0") are kept."""

Shares = dict[str, dict[str, float]]
"""Of each component, the share of its entries in each part of the model."""

_APPLIED = " applied"


def shares_by_layer(selected: Selected) -> Shares:
    """The share of the entries that each component is applied to that lies in each layer."""
    return _shares(selected, layer_of)


def shares_by_module(selected: Selected) -> Shares:
    """The share of the entries that each component is applied to in each kind of module."""
    return _shares(selected, module_of)


def _shares(selected: Selected, part_of: Callable[[str], str]) -> Shares:
    counts: dict[str, dict[str, int]] = {}
    for tensor in sorted(selected, key=natural_order):
        part = part_of(tensor)
        for component, entries in _applied(selected[tensor]).items():
            parts = counts.setdefault(component, {})
            parts[part] = parts.get(part, 0) + entries
    shares: Shares = {}
    for component, parts in counts.items():
        total = sum(parts.values())
        shares[component] = {part: n / total if total else 0.0 for part, n in parts.items()}
    return shares


def _applied(statistics: Mapping[str, int]) -> dict[str, int]:
    named = {
        name.removesuffix(_APPLIED): entries
        for name, entries in statistics.items()
        if name.endswith(_APPLIED)
    }
    return named or dict(statistics)
