"""The part of the development requests that nothing is learned from."""

from __future__ import annotations

import random
from collections.abc import Sequence

from patchc.evaluation.requests import Request, SetName


def is_learned_from(
    asked: Sequence[Request], name: SetName, validation: float, seed: int
) -> list[bool]:
    """Of each request of a set, whether it is learned from; the same share of every kind.

    Args:
        asked: the development requests of the set.
        name: which set.
        validation: share that nothing is learned from, in (0, 1).
        seed: of the draw.
    """
    kinds: dict[str | None, list[int]] = {}
    for number, request in enumerate(asked):
        kinds.setdefault(request.kind, []).append(number)
    learned = [True] * len(asked)
    for kind, numbers in kinds.items():
        rng = random.Random(f"validation {seed} {name} {kind}")
        for number in rng.sample(numbers, round(validation * len(numbers))):
            learned[number] = False
    return learned
