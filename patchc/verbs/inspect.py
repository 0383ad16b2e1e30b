"""Describe a patch from the file alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchc.formats import AdditiveValues, Patch, PatchIndex, TensorRecord, open_patch
from patchc.formats.change_bits import ChangeBits
from patchc.selection.candidates import layer_of, natural_order
from patchc.verbs.provenance import folded_patches
from patchc.verbs.updates import UpdateReport, describe_update


@dataclass(frozen=True)
class PartReport:
    """Figures of one tensor, one layer or the whole model.

    ``words`` are all, ``changed`` those that the patch changes, ``nbytes`` the size of their coded
    bodies.
    """

    name: str
    words: int
    changed: int
    nbytes: int

    @property
    def density(self) -> float:
        """Share of the words that change."""
        return self.changed / self.words if self.words else 0.0

    @property
    def bits_per_change(self) -> float:
        """Bits of coded bodies for each changed word."""
        return 8 * self.nbytes / self.changed if self.changed else 0.0


@dataclass(frozen=True)
class MaskReport:
    """A seeded retention mask, the share of entries that it keeps, and the chunks coded inside."""

    component: str
    retain: float
    seed: int
    chunks: int


@dataclass(frozen=True)
class InspectReport:
    """What a patch file says about itself.

    Attributes:
        path, size: the file, and its size in bytes.
        root: root digest, the file's identity, in hexadecimal.
        base_digest, result_digest: digests of the base and the patched model, in hexadecimal; an
            additive patch promises no result.
        version: format version.
        additive: value type and components of an additive patch, each with its stored scale and
            its entries as the file states them (verify counts them); None for exact steps.
        metadata: provenance: kind, tool, recipe with seed, digests of the inputs, statistics.
        masks: the seeded retention masks inside which changes are coded.
        coded: bits of its changes, split, as the file states them; None where it does not.
        entropy: the bound for its changes, in bits, as the file states it; None where it does not.
        folded: the patches that a fold was made of: root and result digest, in hexadecimal.
        model_bytes: bytes of the base's tensors.
        total: figures of the whole model.
        tensors: changed tensors, by name; one that only a side has says so behind its name.
        layers: changed layers with all their tensors; a tensor outside any layer stands alone.
        dtypes: dtype and shape of each changed tensor, by name.
        update: what happens to tensors and files beside that; None where nothing does.
    """

    path: str
    size: int
    root: str
    base_digest: str
    result_digest: str | None
    version: str
    additive: AdditiveValues | None
    metadata: dict[str, Any]
    masks: tuple[MaskReport, ...]
    coded: ChangeBits | None
    entropy: ChangeBits | None
    folded: tuple[dict[str, str], ...]
    model_bytes: int
    tensor_count: int
    total: PartReport
    tensors: tuple[PartReport, ...]
    layers: tuple[PartReport, ...]
    dtypes: dict[str, tuple[str, tuple[int, ...]]]
    update: UpdateReport | None


def inspect(patch: str | os.PathLike[str]) -> InspectReport:
    """Describe a patch: provenance, totals, density and size per tensor and per layer.

    Needs no base and no model, and decodes no body.

    Raises:
        PatchFormatError, UnsupportedPatchError: the patch cannot be read.
    """
    with open_patch(patch) as opened:
        index = opened.index
        records = index.records
        parts = [_part(opened, record) for record in records]
        changed = [part for part in parts if part.changed]
        return InspectReport(
            path=str(opened.path),
            size=opened.size,
            root=opened.root.hex(),
            base_digest=index.base_digest.hex(),
            result_digest=None if opened.additive else index.result_digest.hex(),
            version=opened.version,
            additive=opened.additive,
            metadata=opened.metadata,
            masks=tuple(_masks(index)),
            coded=ChangeBits.from_json(opened.metadata.get("coded")),
            entropy=ChangeBits.from_json(opened.metadata.get("entropy")),
            folded=tuple(folded_patches(opened.metadata)),
            model_bytes=sum(r.words_on("base") * r.dtype.word_bytes for r in records),
            tensor_count=len(records),
            total=_sum("total", parts),
            tensors=tuple(changed),
            layers=_layers(parts),
            dtypes={_label(record): _kind(record) for record in records if record.chunks},
            update=describe_update(index),
        )


def _part(patch: Patch, record: TensorRecord) -> PartReport:
    rows = slice(record.chunks.start, record.chunks.stop)
    return PartReport(
        name=_label(record),
        words=record.words,
        changed=int(patch.index.entries[rows].sum(dtype=np.int64)),
        nbytes=int(patch.index.lengths[rows].sum(dtype=np.int64)),
    )


def _masks(index: PatchIndex) -> Iterator[MaskReport]:
    for row, mask in enumerate(index.masks):
        chunks = int(np.count_nonzero(index.mask_rows >> row & 1))
        yield MaskReport(mask.component, mask.share, mask.seed, chunks)


def _label(record: TensorRecord) -> str:
    """The name, and on which side alone: another dtype gives a name to two tensors."""
    sides = {"base": " (removed)", "result": " (added)", None: ""}
    return record.name + sides[record.only]


def _kind(record: TensorRecord) -> tuple[str, tuple[int, ...]]:
    return record.dtype.name, record.shape


def _layers(parts: list[PartReport]) -> tuple[PartReport, ...]:
    groups: dict[str, list[PartReport]] = {}
    for part in parts:
        groups.setdefault(layer_of(part.name), []).append(part)
    layers = (_sum(name, groups[name]) for name in sorted(groups, key=natural_order))
    return tuple(layer for layer in layers if layer.changed)


def _sum(name: str, parts: list[PartReport]) -> PartReport:
    return PartReport(
        name,
        words=sum(part.words for part in parts),
        changed=sum(part.changed for part in parts),
        nbytes=sum(part.nbytes for part in parts),
    )
