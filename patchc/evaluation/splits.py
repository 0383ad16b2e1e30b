"""Requests parted into development and test, with no near-duplicate of one side on the other.

Two requests are near-duplicates where the sets of their word bigrams have a Jaccard similarity of
at least 0.8. The words are those of all messages; a mark stands before, between and after them.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, product

import numpy as np
from numpy.typing import NDArray

from patchc.errors import EvaluateError, UsageError
from patchc.evaluation.comparable_text import split_words
from patchc.evaluation.requests import Request

Bigrams = frozenset[tuple[str, str]]
Cluster = list[int]
Stratum = tuple[str | None, list[Cluster]]

_EDGE = ""
_FEWEST_GROUPS = 4
_DRAWS = 10
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Split:
    """Which requests are for development and which for test.

    Attributes:
        development: numbers into the requests, ascending.
        test: the others, ascending.
        grouped_by: "group" where requests of one group were kept together, otherwise ``None``.
        clusters: how many sets of requests there were that must stay together.
    """

    development: tuple[int, ...]
    test: tuple[int, ...]
    grouped_by: str | None
    clusters: int


def split_requests(requests: Sequence[Request], share: float, seed: int) -> Split:
    """Part requests into development, which gets ``share`` of them, and test.

    Near-duplicates stay together, directly or through others between them; so do requests of one
    group where there are at least four groups. Every kind is on both sides where that is found to
    be possible, in about the same share; and the share of all requests is as near as whole clusters
    then allow. The same requests, share and seed give the same split.

    Raises:
        UsageError: the share is not between 0 and 1.
        EvaluateError: there are fewer than two clusters.
    """
    if not 0 < share < 1:
        raise UsageError(f"a share of {share} cannot be split off; give one between 0 and 1")
    groups = {request.group for request in requests} - {None}
    grouped_by = "group" if len(groups) >= _FEWEST_GROUPS else None
    clusters = _clusters(requests, grouped_by is not None)
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


def check_disjoint(
    development: Sequence[Request], test: Sequence[Request]
) -> list[tuple[int, int]]:
    """The pairs (number in ``development``, number in ``test``) of near-duplicates, ascending."""
    owners, first = _owners([*development, *test]), len(development)
    similar = _Similar(list(owners))
    holders = [owners[text] for text in similar.texts]
    mine = [[number for number in numbers if number < first] for numbers in holders]
    theirs = [[number - first for number in numbers if number >= first] for numbers in holders]
    pairs: list[tuple[int, int]] = []
    for number in range(len(holders)):
        pairs += product(mine[number], theirs[number])
        for other in set(chain.from_iterable(map(np.ndarray.tolist, similar.candidates(number)))):
            if similar(number, other):
                pairs += product(mine[number], theirs[other])
                pairs += product(mine[other], theirs[number])
    return sorted(pairs)


# Clusters --------------------------------------------------------------------------------------


def _clusters(requests: Sequence[Request], grouped: bool) -> list[Cluster]:
    """Requests that stay together: their numbers ascending, and clusters by their first number."""
    owners = _owners(requests)
    similar = _Similar(list(owners))
    texts = _Partition(len(owners))
    for number in range(len(owners)):
        for candidates in similar.candidates(number):
            texts.join_where(number, candidates, similar)
    together = _Partition(len(requests))
    for part in texts.parts():
        numbers = [number for text in part for number in owners[similar.texts[text]]]
        for number in numbers:
            together.join(numbers[0], number)
    firsts: dict[str, int] = {}
    for number, request in enumerate(requests):
        if grouped and request.group is not None:
            together.join(firsts.setdefault(request.group, number), number)
    return sorted(sorted(part) for part in together.parts())


class _Partition:
    """Numbers from 0, joined transitively; ``labels`` has the same label for those joined."""

    def __init__(self, count: int) -> None:
        self.labels: NDArray[np.int64] = np.arange(count)
        self._members = [[number] for number in range(count)]

    def join(self, one: int, other: int) -> None:
        labels = {int(self.labels[one]), int(self.labels[other])}
        *gone, kept = sorted(labels, key=lambda label: len(self._members[label]))
        for label in gone:
            self.labels[self._members[label]] = kept
            self._members[kept] += self._members[label]
            self._members[label] = []

    def join_where(
        self, one: int, others: NDArray[np.int64], similar: Callable[[int, int], bool]
    ) -> None:
        """Join those of ``others`` that are similar, and ask only about those not joined yet."""
        while True:
            others = others[self.labels[others] != self.labels[one]]
            numbers = enumerate(others.tolist())
            place = next((place for place, other in numbers if similar(one, other)), None)
            if place is None:
                return
            self.join(one, int(others[place]))
            others = others[place + 1 :]

    def parts(self) -> Iterator[list[int]]:
        return (members for members in self._members if members)


def _owners(requests: Sequence[Request]) -> dict[Bigrams, list[int]]:
    owners: dict[Bigrams, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        words = [_EDGE]
        for message in request.messages:
            words += [*split_words(message["content"]), _EDGE]
        owners[frozenset(pairwise(words))].append(number)
    return owners


class _Similar:
    """Finds near-duplicates among different sets of bigrams through an index of rare ones.

    ``texts`` are the sets by size, ascending, and numbers are places in it. Of a set of n bigrams,
    a near-duplicate that is not larger holds one of the n // 5 + 1 rarest; and that one is among
    the near-duplicate's own m // 9 + 1 rarest (Bayardo et al. 2007; Xiao et al. 2008).
    """

    def __init__(self, texts: list[Bigrams]) -> None:
        self.texts = sorted(texts, key=len)
        self._sizes = [len(text) for text in self.texts]
        counts = Counter(chain.from_iterable(self.texts))
        rarest = sorted(counts, key=counts.__getitem__)
        ranks = {bigram: rank for rank, bigram in enumerate(rarest)}
        self._ranks = [frozenset(ranks[bigram] for bigram in text) for text in self.texts]
        index: dict[int, list[int]] = defaultdict(list)
        for number, text in enumerate(self._ranks):
            for rank in sorted(text)[: len(text) // 9 + 1]:
                index[rank].append(number)
        self._index = {rank: np.array(numbers) for rank, numbers in index.items()}

    def candidates(self, number: int) -> Iterator[NDArray[np.int64]]:
        """Smaller numbers among which all those near-duplicates are, some more than once."""
        text = sorted(self._ranks[number])
        start = bisect_left(self._sizes, 4 * len(text) / 5)
        for place in range(len(text) // 5 + 1):
            # Where this is the first shared bigram, those before it are not shared.
            stop = bisect_right(self._sizes, (5 * len(text) - 9 * place) / 4, hi=number)
            numbers = self._index.get(text[place], _NONE)
            first, last = numbers.searchsorted((start, stop))
            yield numbers[first:last]

    def __call__(self, one: int, other: int) -> bool:
        """Whether shared / (all different) is at least 4 / 5."""
        first, second = self._ranks[one], self._ranks[other]
        return 9 * len(first & second) >= 4 * (len(first) + len(second))


# Sides -----------------------------------------------------------------------------------------


def _draw_best(
    clusters: list[Cluster], kinds: list[str | None], share: float, seed: int
) -> set[int]:
    """The requests of the best of a few draws: kinds on both sides first, then the share."""
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
    """Fill development stratum by stratum, each making up for what those before it lack."""
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
    """The kinds, rarest first, each with the clusters that have none rarer."""
    held = [{kinds[number] for number in cluster} for cluster in clusters]
    spread = Counter(chain.from_iterable(held))

    def rarity(kind: str | None) -> tuple[int, bool, str]:
        return spread[kind], kind is not None, kind or ""

    strata: dict[str | None, list[Cluster]] = defaultdict(list)
    for cluster, among in zip(clusters, held, strict=True):
        strata[min(among, key=rarity)].append(cluster)
    return [(kind, strata[kind]) for kind in sorted(strata, key=rarity)]


def _subset(
    clusters: list[Cluster],
    wanted: float,
    held: list[set[bool]],
    share: float,
    rng: random.Random,
) -> list[Cluster]:
    """Clusters that hold ``wanted`` requests in all, or as near to it as can be.

    An entry of ``held`` has the sides (development is true) that hold requests already. The others
    get some; where that cannot be, the next entry counts.
    """
    by_size: dict[int, list[Cluster]] = defaultdict(list)
    for cluster in clusters:
        by_size[len(cluster)].append(cluster)
    sizes = sorted(by_size)
    reach = [1]  # bit n: the clusters up to a size can make n requests
    for size in sizes:
        reach.append(_sums(reach[-1], size, len(by_size[size])))
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


def _sums(reach: int, size: int, count: int) -> int:
    """The sums in ``reach`` with up to ``count`` times ``size`` added, as bits."""
    step = 1
    while count:
        step = min(step, count)
        reach |= reach << step * size
        count -= step
        step *= 2
    return reach
