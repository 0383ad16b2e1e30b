"""Runs of commands on tiny models, which compile the loops that the commands need.

Each run leaves in its folder what later ones take. Loops are compiled for the words of a model, so
there are models in bf16, f16 and fp32, large enough for every way that size decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchc.recipe import MergeRecipe, Recipe
from patchc.recipe.safepatching import SCOPES
from patchc.recipe.task_merge import MERGE_METHODS
from patchc.signing.trust import JUST_MADE
from patchc.verbs.apply import apply
from patchc.verbs.build import build
from patchc.verbs.diff import diff
from patchc.verbs.fold import fold
from patchc.verbs.revert import revert
from patchc.verbs.verify import verify

Tensors = Mapping[str, NDArray[np.float32]]

_SHAPES = {"layer.0.weight": (80, 1024), "layer.1.weight": (70, 1024), "norm.weight": (1024,)}
_SCORED = ("layer.0.weight", "layer.1.weight")
_DTYPES = ("BF16", "F16", "F32")
_DENSITIES = (0.3, 0.003)
"""Shares of words that an update changes: the encoder passes over a chunk in two ways."""


def _diff(folder: Path) -> None:
    for dtype in _DTYPES:
        base = _base(folder, dtype)
        for number, density in enumerate(_DENSITIES):
            _write(folder / dtype / f"tuned-{number}", _tuned(density), dtype)
        tuned = folder / dtype / "tuned-0"
        diff(base, tuned, out=folder / f"{dtype}-first.patchc")
        diff(tuned, folder / dtype / "tuned-1", out=folder / f"{dtype}-second.patchc")
        diff(base, folder / dtype / "tuned-1", out=folder / f"{dtype}-other.patchc")
        diff(base, tuned, out=folder / f"{dtype}-rice.patchc", codec="rice")


def _build(folder: Path) -> None:
    for dtype in _DTYPES:
        base = _base(folder, dtype)
        se, osm = _component(folder, "se", "F32"), _component(folder, "osm", dtype)
        made = f"{dtype}-build"
        build(base, se=se, osm=osm, out=folder / f"{made}.patchc")
        build(base, se=se, osm=osm, out=folder / f"{made}-rice.patchc", codec="rice")
        for kind in ("bf16", "int8"):
            out = folder / f"{dtype}-additive-{kind}.patchc"
            build(base, se=se, osm=osm, out=out, values="additive", value_type=kind)
    for scope in SCOPES:
        for among in ("retained", "all"):
            recipe = Recipe(scope=scope, rank_among=among, least_step=2)
            out = folder / f"{scope}-{among}.patchc"
            build(_base(folder, "BF16"), se=se, osm=osm, out=out, recipe=recipe)


def _merge(folder: Path) -> None:
    for dtype in _DTYPES:
        base = _base(folder, dtype)
        tuned = _component(folder, "se", "F32"), _component(folder, "osm", dtype)
        for method in MERGE_METHODS:
            out = folder / f"{dtype}-{method}.patchc"
            build(base, tuned=tuned, out=out, recipe=MergeRecipe(method=method))


def _apply(folder: Path) -> None:
    for patch, base in _patches(folder):
        out = folder / f"{patch.stem}-applied"
        apply(patch, base, out=out, trust=JUST_MADE)
        if "additive" not in patch.stem:
            revert(patch, out, in_place=True, trust=JUST_MADE)
            apply(patch, out, in_place=True, trust=JUST_MADE)
            revert(patch, out, out=folder / f"{patch.stem}-reverted", trust=JUST_MADE)
        else:
            tuned = base.parent / "tuned-0"
            onto = folder / f"{patch.stem}-onto"
            apply(patch, tuned, out=onto, onto_descendant=True, trust=JUST_MADE)


def _verify(folder: Path) -> None:
    for patch, base in _patches(folder):
        verify(patch, trust=JUST_MADE)
        verify(patch, base, trust=JUST_MADE)
        if "first" in patch.stem:
            verify(patch, base.parent / "tuned-0", trust=JUST_MADE)


def _fold(folder: Path) -> None:
    for dtype in _DTYPES:
        base = _base(folder, dtype)
        both = [folder / f"{dtype}-{part}.patchc" for part in ("first", "second")]
        fold(both, out=folder / f"{dtype}-folded.patchc", base=base, trust=JUST_MADE)
    parts = [folder / f"{dtype}-{part}-alone.patchc" for part in ("first", "second")]
    models = [_base(folder, dtype), *(folder / dtype / f"tuned-{number}" for number in (0, 1))]
    for out, before, after in zip(parts, models, models[1:], strict=False):
        diff(before, after, out=out, codec="rice")
    fold(parts, out=folder / "folded-alone.patchc", trust=JUST_MADE)


RUNS: dict[str, Callable[[Path], None]] = {
    "diff": _diff,
    "build": _build,
    "merge": _merge,
    "apply": _apply,
    "verify": _verify,
    "fold": _fold,
}
"""Runs by name, in their order: a later one takes what earlier ones left."""


def _patches(folder: Path) -> list[tuple[Path, Path]]:
    """The patches that apply to a base, and the base of each."""
    parts = ("first", "other", "rice", "build", "build-rice", "additive-bf16", "additive-int8")
    return [
        (folder / f"{dtype}-{part}.patchc", _base(folder, dtype))
        for dtype in _DTYPES
        for part in parts
    ]


def _base(folder: Path, dtype: str) -> Path:
    return _write(folder / dtype / "base", _weights(), dtype)


def _component(folder: Path, name: str, dtype: str) -> Path:
    """A tuned model and its scores."""
    place, seed = folder / f"{name}-{dtype}", len(name)
    rng = np.random.default_rng(seed)
    scores = {name: rng.random(_SHAPES[name], np.float32) for name in _SCORED}
    _write(place, scores, "F32", "scores")
    return _write(place, _tuned(1.0, seed), dtype)


def _weights() -> Tensors:
    rng = np.random.default_rng(0)
    drawn = {name: rng.standard_normal(shape, np.float32) for name, shape in _SHAPES.items()}
    return {name: values * np.float32(0.02) for name, values in drawn.items()}


def _tuned(density: float, seed: int = 1) -> Tensors:
    """The base's weights, of which a share has moved; in the last tensor nothing moves."""
    rng, tuned = np.random.default_rng(seed), dict(_weights())
    for name in _SCORED:
        moved = rng.random(_SHAPES[name], np.float32) < density
        tuned[name] = tuned[name] * np.where(moved, np.float32(1.02), np.float32(1))
    return tuned


def _write(folder: Path, tensors: Tensors, dtype: str, stem: str = "model") -> Path:
    """Write a checkpoint of one file, if it is not there."""
    path = folder / f"{stem}.safetensors"
    if path.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    header, body = {}, b""
    for name, values in tensors.items():
        words = _words(values, dtype).tobytes()
        offsets = [len(body), len(body) + len(words)]
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": offsets}
        body += words
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return folder


def _words(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float16) if dtype == "F16" else values
