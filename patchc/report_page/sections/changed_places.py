"""Where the patch changes the model, and by which fitted scales: maps of layers by modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patchc.report_page.blocks import Block, Cell, Figure, Section, Table, Text
from patchc.report_page.fitted_scales import FittedScales
from patchc.report_page.labels import titled
from patchc.report_page.numbers import count, percent, real
from patchc.report_page.pictures import Caption, Numbers, heat_map
from patchc.selection.candidates import layer_of, module_of, natural_order
from patchc.verbs.inspect import ChangeCounts

_MOST_LAYERS, _MOST_MODULES, _MOST_OUTSIDE = 128, 12, 100
_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True)
class _Map:
    """Tensors in numbered layers, by layer and module; ``left_out`` says which have no place."""

    layers: tuple[str, ...]
    modules: tuple[str, ...]
    members: dict[tuple[str, str], list[ChangeCounts]]
    left_out: str

    def values(self, of: Callable[[list[ChangeCounts]], float | None]) -> list[list[float | None]]:
        """The value of each cell; None for a cell without a tensor."""
        return [
            [
                of(self.members[layer, module]) if (layer, module) in self.members else None
                for module in self.modules
            ]
            for layer in self.layers
        ]

    @property
    def row_names(self) -> list[str]:
        """The layers' names without what all have in common."""
        stems = {_NUMBER.sub("", layer) for layer in self.layers}
        alike = len(stems) == 1
        return [f"layer {layer.removeprefix(*stems)}" if alike else layer for layer in self.layers]


def places_section(tensors: Sequence[ChangeCounts], scales: FittedScales | None) -> Section:
    """The density of changes, the fitted scales, and the changed tensors outside of layers."""
    blocks: list[Block] = []
    found = _map_of([one for one in tensors if layer_of(one.name) != one.name])
    if found.layers:
        if found.left_out:
            blocks.append(Text((found.left_out,)))
        title = "Share of entries that change, by layer and module"
        density = found.values(_density)
        legend = "share of entries"
        blocks.append(_figure("density", title, found, density, "percent", legend, centre=None))
        if scales:
            blocks += _scales(scales, found)
    outside = [one for one in tensors if layer_of(one.name) == one.name and one.changed]
    if outside:
        rows = [
            ((one.name,), (count(one.changed),), (count(one.words),), (percent(one.density, 4),))
            for one in outside[:_MOST_OUTSIDE]
        ]
        title = titled("Changed tensors outside of layers", len(rows), len(outside))
        blocks.append(Table(title, ("tensor", "changed", "entries", "share"), rows))
    if not blocks:
        blocks.append(Text(("No entry of a tensor changes.",)))
    return Section("places", "What changed where", blocks)


def _scales(scales: FittedScales, found: _Map) -> list[Block]:
    blocks: list[Block] = []
    for number, component in enumerate(scales.components):
        by_tensor = scales.of(component)

        def mean(tensors: list[ChangeCounts], known: dict[str, float] = by_tensor) -> float | None:
            values = [known[one.name] for one in tensors if one.name in known]
            return sum(values) / len(values) if values else None

        values = found.values(mean)
        title = f"Scale of {component}, by layer and module"
        prefix, centre = f"scale{number}", _centre_of(values)
        blocks.append(_figure(prefix, title, found, values, "plain", "mean scale", centre))
    return blocks


def _centre_of(values: list[list[float | None]]) -> float:
    """1 leaves a component as it is; where some scales turn it around, 0 parts them from others."""
    return 0.0 if any(one is not None and one < 0 for row in values for one in row) else 1.0


def _figure(
    prefix: str,
    title: str,
    found: _Map,
    values: list[list[float | None]],
    numbers: Numbers,
    legend: str,
    centre: float | None,
) -> Figure:
    picture = heat_map(
        Caption(prefix, title, "A row for each layer, a column for each module."),
        rows=found.row_names,
        columns=found.modules,
        values=values,
        legend=legend,
        numbers=numbers,
        centre=centre,
    )
    rows = [
        ((name,), *(_cell(one, numbers) for one in row))
        for name, row in zip(found.row_names, values, strict=True)
    ]
    return Figure(picture, Table(title, ("layer", *found.modules), rows))


def _cell(value: float | None, numbers: Numbers) -> Cell:
    if value is None:
        return ()
    return (percent(value, 2) if numbers == "percent" else real(value),)


def _density(tensors: list[ChangeCounts]) -> float:
    words = sum(one.words for one in tensors)
    return sum(one.changed for one in tensors) / words if words else 0.0


def _map_of(tensors: Sequence[ChangeCounts]) -> _Map:
    """Keep the modules and layers that change, and of many the ones that change most."""
    members: dict[tuple[str, str], list[ChangeCounts]] = {}
    by_module: dict[str, int] = {}
    for one in sorted(tensors, key=lambda one: natural_order(one.name)):
        place = layer_of(one.name), module_of(one.name)
        members.setdefault(place, []).append(one)
        by_module[place[1]] = by_module.get(place[1], 0) + one.changed
    changed = [name for name, entries in by_module.items() if entries]
    most = sorted(changed, key=lambda name: -by_module[name])[:_MOST_MODULES]
    modules = tuple(name for name in changed if name in most)
    layers = tuple(dict.fromkeys(layer for layer, module in members if module in modules))
    rest = [
        f"{len(changed) - len(modules):,} more modules" if len(changed) > len(modules) else "",
        f"{len(layers) - _MOST_LAYERS:,} more layers" if len(layers) > _MOST_LAYERS else "",
    ]
    left_out = " and ".join(filter(None, rest))
    told = (
        f"The maps leave out {left_out}; `patchc inspect` lists every tensor." if left_out else ""
    )
    return _Map(layers[:_MOST_LAYERS], modules, members, told)
