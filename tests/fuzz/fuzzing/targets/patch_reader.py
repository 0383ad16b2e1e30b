"""The patch reader: open, describe, check all bodies, make the words and files of both sides."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

import patchc
from fuzzing.mutation import patch_file
from fuzzing.target import MEMORY, Target, expect, stays_json, written
from patchc.errors import PatchcError
from patchc.formats import Patch, TensorRecord, open_patch
from patchc.formats.container.file_changes import MAX_FILE
from patchc.formats.container.index import ChunkRecord
from patchc.json_values import json_values
from patchc.sides import OTHER

_MOST_CHUNKS = 8
_MOST_CONDITIONAL = 1
"""Chunks of codec 3, which has a target of its own and is slow where loops are interpreted."""

_MOST_WORDS = 1 << 12
"""Words that are drawn or changed one by one, where loops are interpreted."""


def read(data: bytes) -> None:
    """Read all of a patch."""
    path = written("x.patchc", data)
    with open_patch(path) as patch:
        report = patchc.inspect(path)
        expect(report.size == len(data), "the size is not the file's")
        stays_json(json_values(report))
        for number in range(min(len(patch.index.files), _MOST_CHUNKS)):
            _read_file(patch, number)
        for tensor in patch.index.records:
            for place in tensor.chunks[:_MOST_CHUNKS]:
                chunk = patch.index.chunk(place)
                if place < _MOST_CONDITIONAL or not patch.needs_words(chunk):
                    _read_chunk(patch, tensor, chunk)
        patch.check_bodies()


def _read_file(patch: Patch, number: int) -> None:
    for side, other in OTHER.items():
        with suppress(PatchcError):
            content = patch.read_file(number, None, side)
            expect((content is None) != patch.index.files[number].on(side), "a file is not there")
        with suppress(PatchcError):
            patch.read_file(number, bytes(100), other)


def _read_chunk(patch: Patch, tensor: TensorRecord, chunk: ChunkRecord) -> None:
    count = patch.words_in_chunk(tensor, chunk.number)
    if chunk.masks and count > _MOST_WORDS:
        return
    with suppress(PatchcError):
        if patch.additive:
            found = patch.read_deltas(tensor, chunk)
            touched = np.unique(np.concatenate([one.positions for one in found]))
            expect(len(touched) == chunk.entries and touched[-1] < count, "positions are wrong")
        elif not patch.needs_words(chunk):
            positions, steps = patch.read_changes(tensor, chunk)
            expect(len(positions) == len(steps) == chunk.entries, "entries are not as many")
            expect(bool(positions[-1] < count and np.all(steps)), "an entry is out of range")
        elif count <= _MOST_WORDS:
            words = np.arange(count).astype(tensor.dtype.word)
            patch.change_words(tensor, chunk, words)


TARGET = Target(
    "patch_reader",
    read,
    patch_file.mutate,
    (
        "patchc.formats.container",
        "patchc.formats.codecs.__init__",
        "patchc.verbs.inspect",
        "patchc.verbs.updates",
        "patchc.verbs.annotation",
    ),
    executions=1500,
    memory=MEMORY + 2 * MAX_FILE,
)
