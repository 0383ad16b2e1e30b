"""Describe a patch from the file alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchc.formats import AdditiveValues, PatchIndex, TensorRecord, open_patch
from patchc.formats.change_bits import ChangeBits
from patchc.patching.code_files import CodeReport, code_in_patch
from patchc.patching.foreign_names import NameNote, names_of_patch
from patchc.selection.candidates import layer_of, natural_order
from patchc.verbs.annotation import Annotation, annotation_of
from patchc.verbs.provenance import folded_patches
from patchc.verbs.updates import SideCounts, UpdateReport, describe_update


@dataclass(frozen=True)
class ChangeCounts:
    """How much of one tensor, one layer or the whole model a patch changes.

    Attributes:
        name: of the tensor or the layer, or "total".
        words: number of words.
        changed: number of words that the patch changes.
        nbytes: size of their coded bodies.
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
    """A seeded retention mask.

    Attributes:
        component: whose entries it retains.
        retain: the share of entries that it retains.
        seed: of its draws.
        chunks: number of chunks whose changes are coded in it.
    """

    component: str
    retain: float
    seed: int
    chunks: int


@dataclass(frozen=True)
class InspectReport:
    """What a patch file says about itself.

    Attributes:
        path, size: the file, and its size in bytes.
        root: the root digest, which identifies the file, in hexadecimal.
        base_digest, result_digest: digests of the base and the patched model, in hexadecimal; an
            additive patch promises no result.
        version: format version.
        chunk_words: words of a chunk; patches with other chunks have other digests of a model.
        additive: for an additive patch its value type, and its components with their scales and
            their numbers of entries (verify counts them); None for a patch of ULP steps.
        metadata: provenance: kind, tool, recipe with seed, digests of the inputs, statistics.
        annotation: the name, the note and the results that :func:`patchc.annotate` put there.
        masks: the seeded retention masks in which changes are coded.
        coded: the bits of its changes by what they code, if the file states them.
        entropy: the lower bound for the bits of its changes, if the file states it.
        folded: the patches that a fold was made from: root and result digest, in hexadecimal.
        model_bytes: bytes of the base's tensors.
        tensor_count: number of the patch's tensors: those of the base, and those that only the
            result has. ``update`` counts the tensors of either side.
        total: counts of the whole patch. An update holds a tensor of one side alone, such as a
            renamed one, for that side; ``update`` counts the changes of either side.
        tensors: counts of the changed tensors. The name of a tensor that only one side has says so.
        layers: counts of the changed layers; a tensor outside any layer stands alone.
        dtypes: dtype and shape of each changed tensor, by name.
        update: other changes of tensors and files; None unless the patch is an update.
        code: the files that it brings and that a loader or an interpreter would run.
        name_notes: names that some systems cannot have, or not tell apart.
        signatures: ids of the keys that the file's signatures name; nothing here checks them.
        issued: when what they sign was stated; None in a file that is not signed.
        expires: from when on the signatures no longer count; None for never.
    """

    path: Path
    size: int
    root: str
    base_digest: str
    result_digest: str | None
    version: str
    chunk_words: int
    additive: AdditiveValues | None
    metadata: dict[str, Any]
    annotation: Annotation
    masks: tuple[MaskReport, ...]
    coded: ChangeBits | None
    entropy: ChangeBits | None
    folded: tuple[dict[str, str], ...]
    model_bytes: int
    tensor_count: int
    total: ChangeCounts
    tensors: tuple[ChangeCounts, ...]
    layers: tuple[ChangeCounts, ...]
    dtypes: dict[str, tuple[str, tuple[int, ...]]]
    update: UpdateReport | None
    code: CodeReport
    name_notes: tuple[NameNote, ...]
    signatures: tuple[str, ...]
    issued: str | None
    expires: str | None

    @property
    def result(self) -> SideCounts:
        """Counts of the model that apply writes: of an update's result, else of the whole patch."""
        total = self.total
        if self.update:
            return self.update.result
        return SideCounts(self.tensor_count, total.words, len(self.tensors), total.changed)


def inspect(patch: str | os.PathLike[str]) -> InspectReport:
    """Describe a patch: provenance, totals, density and size per tensor and per layer.

    The base and the model are not needed. Only bodies of files are read: they may hold code.

    Args:
        patch: a patch file.

    Raises:
        PatchFormatError, UnsupportedPatchError: the patch cannot be read.
    """
    with open_patch(patch) as opened:
        index, signed = opened.index, opened.signatures
        records = index.records
        counts = count_changes(index)
        return InspectReport(
            path=opened.path,
            size=opened.size,
            root=opened.root.hex(),
            base_digest=index.base_digest.hex(),
            result_digest=None if opened.additive else index.result_digest.hex(),
            version=opened.version,
            chunk_words=opened.chunk_words,
            additive=opened.additive,
            metadata=opened.metadata,
            annotation=annotation_of(opened.metadata),
            masks=tuple(
                MaskReport(
                    mask.component,
                    mask.share,
                    mask.seed,
                    int(np.count_nonzero(index.chunk_masks >> number & 1)),
                )
                for number, mask in enumerate(index.masks)
            ),
            coded=ChangeBits.from_json(opened.metadata.get("coded")),
            entropy=ChangeBits.from_json(opened.metadata.get("entropy")),
            folded=tuple(folded_patches(opened.metadata)),
            model_bytes=sum(r.words_on("base") * r.dtype.word_bytes for r in records),
            tensor_count=len(records),
            total=_sum("total", counts),
            tensors=tuple(one for one in counts if one.changed),
            layers=_layers(counts),
            dtypes={_label(r): (r.dtype.name, r.shape) for r in records if r.chunks},
            update=describe_update(index),
            code=code_in_patch(opened),
            name_notes=names_of_patch(opened),
            signatures=tuple(one.key_id for one in signed.signatures) if signed else (),
            issued=signed.statement.issued_text if signed else None,
            expires=signed.statement.expires_text if signed else None,
        )


def count_changes(index: PatchIndex) -> list[ChangeCounts]:
    """Count what a patch changes of each tensor: the difference of two running sums."""
    records = index.records
    starts = [0, *(record.chunks.stop for record in records)]
    columns = (index.entries, index.lengths)
    running = [
        np.concatenate((np.zeros(1, np.int64), np.cumsum(of, dtype=np.int64))) for of in columns
    ]
    changed, nbytes = (np.diff(of[starts]).tolist() for of in running)
    return [
        ChangeCounts(_label(record), record.words, *own)
        for record, *own in zip(records, changed, nbytes, strict=True)
    ]


def _label(record: TensorRecord) -> str:
    """Return the name, with the side if only one has it; a cast tensor has both records."""
    sides = {"base": " (removed)", "result": " (added)", None: ""}
    return record.name + sides[record.only]


def _layers(tensors: list[ChangeCounts]) -> tuple[ChangeCounts, ...]:
    groups: dict[str, list[ChangeCounts]]
    groups = {layer_of(tensor.name): [] for tensor in tensors if tensor.changed}
    for tensor in tensors if groups else ():
        if (name := layer_of(tensor.name)) in groups:
            groups[name].append(tensor)
    return tuple(_sum(name, groups[name]) for name in sorted(groups, key=natural_order))


def _sum(name: str, counts: list[ChangeCounts]) -> ChangeCounts:
    return ChangeCounts(
        name,
        words=sum(one.words for one in counts),
        changed=sum(one.changed for one in counts),
        nbytes=sum(one.nbytes for one in counts),
    )
