"""The whole selection and merge in plain NumPy, written from the method's text alone.

Nothing here imports patchc: tests compare the two bit for bit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

Counter = tuple[NDArray[np.uint64], ...]


@dataclass(frozen=True)
class OracleComponent:
    """One patch of the two: its fine-tuned weights and scores, by tensor name."""

    name: str
    tuned: dict[str, NDArray]
    scores: dict[str, NDArray[np.float32]]
    top: float


@dataclass(frozen=True)
class Options:
    """The parameters of a selection, with overrides as (expression, values)."""

    seed: int
    values: dict[str, float]
    overrides: tuple[tuple[str, dict[str, float]], ...] = ()
    scope: str = "tensor"
    rank_among: str = "retained"
    sets: str = "difference"
    rescale: bool = False
    least_step: int = 1

    def of(self, name: str) -> dict[str, float]:
        """retain, top_se, top_osm, alpha and beta in one tensor."""
        found = dict(self.values)
        for expression, values in self.overrides:
            if re.search(expression, name):
                found.update(values)
        return found


@dataclass(frozen=True)
class OracleTensor:
    """What becomes of one tensor, flat: its result, the top sets, and who is applied where."""

    result: NDArray
    se: NDArray[np.bool_]
    osm: NDArray[np.bool_]
    applied: dict[str, NDArray[np.bool_]]


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """One Philox4x32-10 block, in Python integers: four counter words and two key words."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        left, right = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (
            (right >> 32) ^ x1 ^ k0,
            right % 2**32,
            (left >> 32) ^ x3 ^ k1,
            left % 2**32,
        )
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return x0, x1, x2, x3


def philox_blocks(blocks: NDArray[np.uint64], stream: int, seed: int) -> NDArray[np.uint64]:
    """The four words of many blocks at once, one row a block; as :func:`philox`."""
    word, low = np.uint64(32), np.uint64(2**32 - 1)
    x = np.empty((4, blocks.size), np.uint64)
    x[0], x[1] = blocks & low, blocks >> word
    x[2], x[3] = stream % 2**32, stream >> 32
    k0, k1 = seed % 2**32, seed >> 32
    for _ in range(10):
        left, right = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        x = np.stack(
            [
                (right >> word) ^ x[1] ^ np.uint64(k0),
                right & low,
                (left >> word) ^ x[3] ^ np.uint64(k1),
                left & low,
            ]
        )
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return x.T


def stream_of(component: str, tensor: str) -> int:
    """The 64-bit stream of a component and a tensor."""
    digest = blake3(b"%s\0%s" % (component.encode(), tensor.encode())).digest()
    return sum(byte << (8 * i) for i, byte in enumerate(digest[:8]))


def retained(
    component: str, tensor: str, seed: int, retain: float, first: int, count: int
) -> NDArray[np.bool_]:
    """Which of the flat indices from ``first`` on are retained."""
    blocks = np.arange(first // 4, (first + count + 3) // 4, dtype=np.uint64)
    draws = philox_blocks(blocks, stream_of(component, tensor), seed).ravel()
    skip = first % 4
    return draws[skip : skip + count] < np.uint64(round(retain * 2**32))


def top_set(
    scores: NDArray[np.float32], candidates: NDArray[np.bool_], count: int
) -> NDArray[np.bool_]:
    """The ``count`` highest-scored candidates; of equal scores, those of lower index."""
    ranked = sorted(np.flatnonzero(candidates).tolist(), key=lambda i: (-float(scores[i]), i))
    chosen = np.zeros(scores.size, np.bool_)
    chosen[ranked[:count]] = True
    return chosen


def top_sets(
    part: OracleComponent, shapes: dict[str, tuple[int, ...]], options: Options
) -> dict[str, NDArray[np.bool_]]:
    """The top set of one component in every tensor, flat."""
    names = sorted(shapes, key=str.encode)
    sizes = [math.prod(shapes[name]) for name in names]
    settings = [options.of(name) for name in names]
    kept = [
        retained(part.name, name, options.seed, one["retain"], 0, size)
        for name, size, one in zip(names, sizes, settings, strict=True)
    ]
    everything = np.concatenate(kept)
    ranked = everything if options.rank_among == "retained" else np.ones_like(everything)
    scores = np.concatenate([part.scores[name].ravel() for name in names])
    groups: list[tuple[slice, float]] = []
    end = 0
    for name, size, one in zip(names, sizes, settings, strict=True):
        start, end = end, end + size
        length = shapes[name][-1] if options.scope == "row" and shapes[name] else size
        share = one[f"top_{part.name}"]
        groups += [(slice(at, at + length), share) for at in range(start, end, max(length, 1))]
    if options.scope == "global":
        groups = [(slice(0, end), part.top)]
    chosen = np.zeros(end, np.bool_)
    for where, share in groups:
        count = math.floor(share * (where.stop - where.start))
        count = min(count, int(ranked[where].sum()))
        chosen[where] = top_set(scores[where], ranked[where], count)
    ends = np.cumsum(sizes)
    return dict(zip(names, np.split(chosen, ends[:-1]), strict=True))


def build_model(
    base: dict[str, NDArray], components: tuple[OracleComponent, ...], options: Options
) -> dict[str, OracleTensor]:
    """Selection and merge of the tensors that have scores of every component."""
    names = [name for name in base if all(name in part.scores for part in components)]
    shapes = {name: base[name].shape for name in names}
    chosen = {part.name: top_sets(part, shapes, options) for part in components}
    return {name: _merge(name, base[name].ravel(), components, chosen, options) for name in names}


def _merge(
    name: str,
    flat: NDArray,
    components: tuple[OracleComponent, ...],
    chosen: dict[str, dict[str, NDArray[np.bool_]]],
    options: Options,
) -> OracleTensor:
    nothing = np.zeros(flat.size, np.bool_)
    se, osm = (chosen[part][name] if part in chosen else nothing for part in ("se", "osm"))
    enters = {
        "difference": {"se": se & ~osm, "osm": osm & ~se},
        "intersection": {"se": se & osm, "osm": se & osm},
    }.get(options.sets, {"se": se, "osm": osm})
    one = options.of(name)
    for part in enters:  # the retention mask m on the delta: m ⊙ P
        kept = retained(part, name, options.seed, one["retain"], 0, flat.size)
        enters[part] = enters[part] & kept
    value = flat.astype(np.float32)
    origin = value.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for part in components:
            at = enters[part.name]
            scale = one["alpha" if part.name == "se" else "beta"]
            if options.rescale:
                scale = scale / one["retain"] if one["retain"] else 0.0
            delta = part.tuned[name].ravel()[at].astype(np.float32) - origin[at]
            value[at] = value[at] + np.float32(scale) * delta
        result = flat.copy()
        either = enters["se"] | enters["osm"]
        result[either] = value[either].astype(flat.dtype)
    if options.least_step > 1:
        words = [values.view(f"u{values.dtype.itemsize}") for values in (flat, result)]
        for place, step in steps(*words, True).items():
            if abs(step) < options.least_step:
                result[place] = flat[place]
    if not np.isfinite(result[either].astype(np.float32)).all():
        raise OverflowError(name)
    return OracleTensor(result, se, osm, enters)


def order(word: int, width: int, is_float: bool) -> int:
    """A word's place among all words of its dtype; floats in IEEE total order.

    Negative floats run downwards from −0 at −1; other words are as they are.
    """
    magnitude = word % 2 ** (width - 1)
    if is_float and word != magnitude:
        return -1 - magnitude
    return word


def steps(before: NDArray, after: NDArray, is_float: bool) -> dict[int, int]:
    """Position → step of every word that differs, each step in its signed form modulo 2^width."""
    width = 8 * before.dtype.itemsize
    found = {}
    for i, (b, a) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
        if a != b:
            step = (order(a, width, is_float) - order(b, width, is_float)) % 2**width
            found[i] = step - 2**width if step >= 2 ** (width - 1) else step
    return found
