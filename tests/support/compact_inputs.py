"""Compact components, written out in NumPy by the documented layout, beside whole inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import selection_oracle as oracle
from build_inputs import Inputs
from numpy.typing import NDArray
from tiny_checkpoints import Raw, write_model

from patchc.checkpoint import open_checkpoint
from patchc.selection.component_record import sample_digest

BLOCK = 1 << 14
Arrays = Mapping[str, NDArray]
Share = Callable[[str], float]


def write_component(
    folder: Path,
    base: Path,
    component: str,
    tuned: Arrays,
    scores: Mapping[str, Arrays],
    seed: int,
    share: Share,
    rest_unchanged: bool = False,
    shards: int = 1,
) -> Path:
    """Write the retained entries of fp32 tensors as a compact component.

    Args:
        folder: a new folder.
        base: the base's folder.
        component: the name by which entries are drawn.
        tuned: tensors of the tuned model, of which entries are held.
        scores: the same tensors' scores, by kind.
        seed: of the draws.
        share: p by a tensor's name.
        rest_unchanged: whether the other tensors are the base's.
        shards: number of files of each kind.
    """
    masks = {
        name: oracle.retained(component, name, seed, share(name), 0, value.size)
        for name, value in tuned.items()
    }

    write = partial(write_model, folder, shards=shards, form="patchc component")

    def taken(values: Arrays) -> dict[str, NDArray]:
        return {n: values[n].astype(np.float32).ravel()[mask] for n, mask in masks.items()}

    write(taken(tuned), stem="component")
    for kind, values in scores.items():
        write(taken(values), stem=f"component-scores-{kind}")
    counts = {
        name: [int(m[i : i + BLOCK].sum()) for i in range(0, m.size, BLOCK)]
        for name, m in masks.items()
    }
    write({n: as_counts(c) for n, c in counts.items()}, stem="component-counts")
    with open_checkpoint(base) as opened:
        digest = sample_digest(opened)
    write_description(
        folder,
        {
            "kind": "patchc component",
            "version": 1,
            "component": component,
            "seed": seed,
            "scores": list(scores),
            "rest_unchanged": rest_unchanged,
            "base": digest,
            "tensors": {
                name: {"shape": list(value.shape), "retain": share(name)}
                for name, value in tuned.items()
            },
        },
    )
    return folder


def as_counts(counts: Sequence[int]) -> Raw:
    """Numbers as a file of counts stores them."""
    return Raw("U32", (len(counts),), np.array(counts, np.uint32).tobytes())


def write_components(
    folder: Path, inputs: Inputs, seed: int, share: Share, kind: str = "weight", **more: Any
) -> dict[str, Path]:
    """Write the base, and both components of SafePatching as compact ones."""
    base = write_model(folder / "base", inputs.base)
    paths = {"base": base}
    for part in ("se", "osm"):
        tuned = {name: inputs.tuned[part][name] for name in inputs.scores[part]}
        paths[part] = write_component(
            folder / f"compact-{part}",
            base,
            part,
            tuned,
            {kind: inputs.scores[part]},
            seed,
            share,
            **more,
        )
    return paths


def read_description(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "component.json").read_text())
    return content


def write_description(folder: Path, content: Any) -> None:
    (folder / "component.json").write_text(json.dumps(content))


def change_description(folder: Path, **changes: Any) -> None:
    write_description(folder, read_description(folder) | changes)
