"""Requests split into development and test, and development into learned and held out."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from patchc.errors import EvaluateError, UsageError
from patchc.evaluation.near_duplicates import Cluster, cluster_requests
from patchc.evaluation.requests import Request, SetName

Stratum = tuple[str | None, list[Cluster]]

_FEWEST_GROUPS = 4
_DRAWS = 10


@dataclass(frozen=True)
class Split:
    """Which requests are for development and which for test.

    Attributes:
        development: numbers into the requests, ascending.
        test: the others, ascending.
        grouped_by: "group" if requests of one group were kept together, otherwise None.
        clusters: how many sets of requests had to stay together.
    """

    development: tuple[int, ...]
    test: tuple[int, ...]
    grouped_by: str | None
    clusters: int


def split_requests(requests: Sequence[Request], share: float, seed: int) -> Split:
    """Split requests into development, which gets ``share`` of them, and test.

    Near-duplicates stay together, also those that are linked through others
    (:mod:`patchc.evaluation.near_duplicates`). So do requests of one group if there are at least
    four groups. Every kind is on both sides, in about the same share, if a way to do so is found.
    The share of all requests is then as near as whole clusters allow. The same requests, share and
    seed give the same split.

    Raises:
        UsageError: the share is not between 0 and 1.
        EvaluateError: there are fewer than two clusters.
    """
    if not 0 < share < 1:
        raise UsageError(f"a share of {share} cannot be split off; give one between 0 and 1")
    groups = {request.group for request in requests} - {None}
    grouped_by = "group" if len(groups) >= _FEWEST_GROUPS else None
    clusters = cluster_requests(requests, grouped_by is not None)
    if len(clusters) < 2:
        first = f" (the first at {requests[0].source})" if requests else ""
        raise EvaluateError(
            f"cannot split {len(requests)} requests{first}: near-duplicates"
            f"{' and requests of one group' if grouped_by else ''} stay together, and that leaves "
            f"{len(clusters)} cluster{'' if clusters else 's'} where two are needed; give "
            "development and test requests of your own, or more different ones"
        )
    development = _draw_best(clusters, [request.kind for request in requests], share, seed)
    test = (number for number in range(len(requests)) if number not in development)
    return Split(tuple(sorted(development)), tuple(test), grouped_by, len(clusters))


def is_learned_from(
    asked: Sequence[Request], name: SetName, validation: float, seed: int
) -> list[bool]:
    """Choose the requests of a set to learn from, about the same share of each kind.

    Returns one bool per request. With two or more requests, at least one is on either side.

    Args:
        asked: the development requests of the set.
        name: which set.
        validation: the share that is held out, in (0, 1).
        seed: of the draw.
    """
    kinds: dict[str | None, list[int]] = defaultdict(list)
    for number, request in enumerate(asked):
        kinds[request.kind].append(number)
    learned = [True] * len(asked)
    over = 0.0
    for kind, numbers in kinds.items():
        # The next kind makes up for the rounding of this one.
        wanted = validation * len(numbers) + over
        taken = min(len(numbers), max(0, round(wanted)))
        over = wanted - taken
        rng = random.Random(f"validation {seed} {name} {kind}")
        for number in rng.sample(numbers, taken):
            learned[number] = False
    if len(asked) > 1 and len(set(learned)) == 1:
        learned[0] = not learned[0]
    return learned


def _draw_best(
    clusters: list[Cluster], kinds: list[str | None], share: float, seed: int
) -> set[int]:
    """Return the best of a few draws: kinds on both sides come first, then the share."""
    rng = random.Random(f"split {seed}")
    strata = _strata(clusters, kinds)
    draws = [_draw(strata, kinds, share, rng) for _ in range(_DRAWS)]

    def badness(development: set[int]) -> tuple[int, float]:
        sides = {(kind, number in development) for number, kind in enumerate(kinds)}
        return -len(sides), abs(len(development) - share * len(kinds))

    return min(draws, key=badness)


def _draw(
    strata: list[Stratum], kinds: list[str | None], share: float, rng: random.Random
) -> set[int]:
    """Fill development stratum by stratum; each makes up for what those before it lack."""
    development: set[int] = set()
    seen = 0
    filled: dict[str | None, set[bool]] = defaultdict(set)
    for place, (kind, stratum) in enumerate(strata, start=1):
        last = place == len(strata)
        enough = set[bool]().union(*filled.values()) if last else {True, False}
        seen += sum(map(len, stratum))
        wanted = share * seen - len(development)
        for chosen in _subset(stratum, wanted, [filled[kind], enough], share, rng):
            development.update(chosen)
        for number in chain.from_iterable(stratum):
            filled[kinds[number]].add(number in development)
    return development


def _strata(clusters: list[Cluster], kinds: list[str | None]) -> list[Stratum]:
    """Sort the kinds, rarest first; each has the clusters that hold no rarer kind."""
    held = [{kinds[number] for number in cluster} for cluster in clusters]
    spread = Counter(chain.from_iterable(held))

    def rarity(kind: str | None) -> tuple[int, bool, str]:
        return spread[kind], kind is not None, kind or ""

    strata: dict[str | None, list[Cluster]] = defaultdict(list)
    for cluster, among in zip(clusters, held, strict=True):
        strata[min(among, key=rarity)].append(cluster)
    return [(kind, strata[kind]) for kind in sorted(strata, key=rarity)]


def _subset(
    clusters: list[Cluster], wanted: float, held: list[set[bool]], share: float, rng: random.Random
) -> list[Cluster]:
    """Draw clusters that hold ``wanted`` requests in all, or as near to it as possible.

    Each entry of ``held`` is a set of sides (development is true) that hold requests already. The
    other side must get some; if that is impossible, the next entry applies instead.
    """
    by_size: dict[int, list[Cluster]] = defaultdict(list)
    for cluster in clusters:
        by_size[len(cluster)].append(cluster)
    sizes = sorted(by_size)
    reach = [1]  # Bit n: the clusters up to a size can make n requests.
    for size in sizes:
        sums = reach[-1]
        for _ in by_size[size]:
            sums |= sums << size
        reach.append(sums)
    totals = [total for total, bit in enumerate(reversed(f"{reach[-1]:b}")) if bit == "1"]
    for sides in held:
        least, most = int(True not in sides), totals[-1] - int(False not in sides)
        fitting = [total for total in totals if least <= total <= most]
        if fitting:
            break
    left = min(fitting, key=lambda total: abs(total - wanted))
    chosen = []
    for size, smaller in zip(reversed(sizes), reversed(reach[:-1]), strict=True):
        same = by_size[size]
        even = math.floor(share * len(same) + rng.random())
        counts = range(min(len(same), left // size) + 1)
        possible = [count for count in counts if smaller >> left - count * size & 1]
        count = min(possible, key=lambda count: abs(count - even))
        chosen += rng.sample(same, count)
        left -= count * size
    return chosen
