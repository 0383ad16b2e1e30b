"""Whole derivations of tiny models, for every objective, and the digests of what they write."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_llama import PAIRS, write_data

from patchc.checkpoint import open_checkpoint
from patchc.derivation.base_model import load_tokenizer
from patchc.derivation.conversations import read_conversations
from patchc.derivation.derivation import derive_directions
from patchc.derivation.derive_options import DeriveOptions, TuneOptions
from patchc.derivation.direction import Material
from patchc.derivation.direction_report import DirectionReport
from patchc.derivation.examples import Example, encode
from patchc.derivation.margin import Labelled, Openings
from patchc.derivation.trainer import IN_MEMORY, Layout
from patchc.layered.scratch import Scratch
from patchc.progress import Progress, ignore_progress
from patchc.recipe.safepatching import SCORES

OPENINGS = Openings.of([(7, 8), (7, 9), (10,)])
LABELLED = [
    *(Labelled(prompt, True) for prompt in [(6, 7), (8, 9, 10), (11,)]),
    *(Labelled(prompt, False) for prompt in [(12, 13), (14, 15, 16, 17)]),
]
REPLIES = (Example((12, 13), (8, 9, 2)), Example((14, 15, 16, 17), (10,)))
_TUNING = TuneOptions(learning_rate=1e-3, steps=3, batch_size=3)
OPTIONS = DeriveOptions(
    se=_TUNING,
    osm=_TUNING,
    margin=replace(_TUNING, batch_size=4),
    score_samples=3,
    scores=SCORES,
    optimizer="adamw",
    anchor_weight=3.0,
    device="cpu",
)
STREAMED = Layout(streams=True, keeps=False, ahead=True, states_in_scratch=False)


def material_of(folder: Path, options: DeriveOptions, *, anchored: bool = True) -> Material:
    """What an objective learns from; the data file lies in the folder."""
    anchors = REPLIES if anchored else ()
    if options.objective == "margin":
        return Material(labelled=tuple(LABELLED), openings=OPENINGS, anchors=anchors)
    conversations = read_conversations(write_data(folder / "data.jsonl"))
    return Material(conversations, anchors=anchors)


def examples_of(folder: Path, base: Path) -> list[Example]:
    """The same conversations as tokens."""
    tokenizer = load_tokenizer(base)
    found = read_conversations(write_data(folder / "data.jsonl", PAIRS))
    return encode(tokenizer, found, OPTIONS.max_length)


def derived(
    base: Path,
    material: Material,
    out: Path,
    options: DeriveOptions,
    layout: Layout = IN_MEMORY,
    scratch: Path | None = None,
    progress: Progress = ignore_progress,
    fingerprint: Mapping[str, Any] | None = None,
) -> tuple[DirectionReport, ...]:
    """Derive as the verb does; the scratch folder is removed at the end."""
    with open_checkpoint(base) as opened:
        if not layout.streams:
            return derive_directions(opened, material, out, options, progress)
        assert scratch is not None
        with Scratch(scratch, fingerprint or {}) as files:
            reports = derive_directions(opened, material, out, options, progress, layout, files)
            files.remove()
        return reports


def written(
    base: Path,
    material: Material,
    out: Path,
    options: DeriveOptions,
    layout: Layout = IN_MEMORY,
    scratch: Path | None = None,
) -> dict[str, str]:
    """Derive, and return the digests of all files; they are removed again."""
    derived(base, material, out, options, layout, scratch)
    digests = digests_of(out)
    shutil.rmtree(out)
    return digests


def digests_of(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
