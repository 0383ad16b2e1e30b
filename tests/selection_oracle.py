"""The whole selection and merge in plain NumPy, written from the method's text alone.

Nothing here imports patchc: tests compare the two bit for bit.
"""

from __future__ import annotations

import math
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
    scale: float


@dataclass(frozen=True)
class OracleTensor:
    """What becomes of one tensor, flat: its result, and who selected what."""

    result: NDArray
    se: NDArray[np.bool_]
    osm: NDArray[np.bool_]


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


def build_tensor(
    name: str, base: NDArray, components: tuple[OracleComponent, ...], seed: int, retain: float
) -> OracleTensor:
    """Selection and merge of one tensor."""
    flat = base.ravel()
    chosen = []
    for part in components:
        kept = retained(part.name, name, seed, retain, 0, flat.size)
        count = min(math.floor(part.top * flat.size), int(kept.sum()))
        chosen.append(top_set(part.scores[name].ravel(), kept, count))
    se, osm = chosen
    value = flat.astype(np.float32)
    origin = value.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for part, mine, other in zip(components, chosen, chosen[::-1], strict=True):
            at = mine & ~other
            delta = part.tuned[name].ravel()[at].astype(np.float32) - origin[at]
            value[at] = value[at] + np.float32(part.scale) * delta
        result = flat.copy()
        either = se ^ osm
        result[either] = value[either].astype(base.dtype)
    if not np.isfinite(result[either].astype(np.float32)).all():
        raise OverflowError(name)
    return OracleTensor(result, se, osm)


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
