"""The part of the development requests that nothing is learned from."""

from __future__ import annotations

import random
from collections.abc import Sequence

from patchc.evaluation.requests import Request, SetName


def is_learned_from(
    asked: Sequence[Request], name: SetName, validation: float, seed: int
) -> list[bool]:
    """Of each request of a set, whether it is learned from; about the same share of every kind.

    Of two requests and more, at least one is on either side.

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
    over = 0.0
    for kind, numbers in kinds.items():
        # What one kind is rounded by, the next one makes up for.
        wanted = validation * len(numbers) + over
        taken = min(len(numbers), max(0, round(wanted)))
        over = wanted - taken
        rng = random.Random(f"validation {seed} {name} {kind}")
        for number in rng.sample(numbers, taken):
            learned[number] = False
    if len(asked) > 1 and len(set(learned)) == 1:
        learned[0] = not learned[0]
    return learned
