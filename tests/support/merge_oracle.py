"""Task arithmetic, DARE, magnitude pruning and TIES on whole arrays in plain NumPy.

Written from the methods' text alone; nothing here imports patchc. Tests compare the two bit for
bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

Model = Mapping[str, NDArray]
F32 = np.float32


@dataclass(frozen=True)
class Merge:
    """A method and all of its parameters, none left to a default.

    ``own`` holds weights and λ of single tensors, in place of the common ones.
    """

    method: str
    density: float
    weights: Sequence[float]
    lam: float = 1.0
    seed: int = 0
    scope: str = "tensor"
    rescale: bool = False
    own: Mapping[str, tuple[Sequence[float], float]] = field(default_factory=dict)

    def scales(self, name: str) -> list[np.float32]:
        """The factor of each τ in a tensor."""
        weights = self.own[name][0] if name in self.own else self.weights
        if self.rescale:
            weights = [w / self.density if self.density else 0.0 for w in weights]
        return [F32(w) for w in weights]

    def step(self, name: str, total: NDArray[np.float32]) -> NDArray[np.float32]:
        """λ · total in a tensor."""
        return F32(self.own[name][1] if name in self.own else self.lam) * total


def philox_word(index: int, stream: int, seed: int) -> int:
    """The draw of one flat index: Philox4x32-10 in Python integers."""
    x = [index // 4 % 2**32, index // 4 >> 32, stream % 2**32, stream >> 32]
    k0, k1 = seed % 2**32, seed >> 32
    for _ in range(10):
        a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(b >> 32) ^ x[1] ^ k0, b % 2**32, (a >> 32) ^ x[3] ^ k1, a % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return x[index % 4]


def drawn(model: int, tensor: str, size: int, merge: Merge) -> NDArray[np.bool_]:
    """DARE's kept entries."""
    digest = blake3(f"model-{model}\0{tensor}".encode()).digest()
    stream = int.from_bytes(digest[:8], "little")
    limit = round(merge.density * 2**32)
    return np.array([philox_word(i, stream, merge.seed) < limit for i in range(size)], bool)


def largest(deltas: Model, density: float) -> dict[str, NDArray[np.bool_]]:
    """The entries of largest magnitude over several tensors; of equal ones the first."""
    names = sorted(deltas, key=str.encode)
    places = [(n, i) for n in names for i in range(deltas[n].size)]
    ranked = sorted(places, key=lambda at: -abs(float(deltas[at[0]][at[1]])))  # a stable sort
    masks = {name: np.zeros(deltas[name].size, bool) for name in names}
    for name, i in ranked[: math.floor(density * len(places))]:
        masks[name][i] = True
    return masks


def trim(model: int, deltas: Model, merge: Merge) -> dict[str, NDArray[np.float32]]:
    """A task vector with the entries that its method does not keep set to 0."""
    if merge.method == "task-arithmetic":
        masks: Any = dict.fromkeys(deltas, True)
    elif merge.method == "dare":
        masks = {name: drawn(model, name, d.size, merge) for name, d in deltas.items()}
    elif merge.scope == "global":
        masks = largest(deltas, merge.density)
    else:
        masks = {n: largest({n: d}, merge.density)[n] for n, d in deltas.items()}
    return {name: np.where(masks[name], d, F32(0)) for name, d in deltas.items()}


def add_up(terms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Σ in fp32, in order."""
    total = np.zeros_like(terms[0])
    for term in terms:
        total = total + term
    return total


def elect(
    terms: Sequence[NDArray[np.float32]], weights: Sequence[np.float32], majority: int
) -> NDArray[np.float32]:
    """TIES after trimming: the weighted mean of the terms that have the elected sign."""
    sign = np.sign(add_up(terms))
    sign[sign == 0] = majority
    agree = [(np.sign(term) == sign) & (term != 0) for term in terms]
    above = add_up([np.where(a, term, F32(0)) for a, term in zip(agree, terms, strict=True)])
    below = add_up([np.where(a, w, F32(0)) for a, w in zip(agree, weights, strict=True)])
    return np.where(below > 0, above / np.where(below > 0, below, F32(1)), F32(0))


def merge_models(
    base: Model, tuned: Sequence[Model], merge: Merge, names: Sequence[str]
) -> dict[str, NDArray]:
    """The merged tensors ``names``, flat, in the base's dtypes; the others do not change."""
    origin = {name: base[name].ravel().astype(F32) for name in names}
    terms: list[dict[str, NDArray[np.float32]]] = []
    for number, model in enumerate(tuned):
        deltas = {name: model[name].ravel().astype(F32) - origin[name] for name in names}
        kept = trim(number, deltas, merge)
        terms.append({name: merge.scales(name)[number] * kept[name] for name in names})
    sums = {name: add_up([term[name] for term in terms]) for name in names}
    balance = {n: int((s > 0).sum()) - int((s < 0).sum()) for n, s in sums.items()}
    merged = {}
    for name in names:
        total = sums[name]
        if merge.method == "ties":
            votes = balance[name] if merge.scope == "tensor" else sum(balance.values())
            total = elect([term[name] for term in terms], merge.scales(name), int(np.sign(votes)))
        step = merge.step(name, total)
        value = (origin[name] + step).astype(base[name].dtype)
        if not np.isfinite(value.astype(F32)).all():
            raise OverflowError(name)
        merged[name] = np.where(step == 0, base[name].ravel(), value)
    return merged
