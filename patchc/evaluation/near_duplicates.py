"""Requests that are nearly the same: found, and gathered into clusters that stay together.

Two requests are near-duplicates if the sets of their word bigrams have a Jaccard similarity of at
least 0.8. The words are those of all messages and of a question's choices, with a mark before,
between and after them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise, product

import numpy as np
from numpy.typing import NDArray

from patchc.evaluation.requests import Request
from patchc.evaluation.texts import split_words

Bigrams = frozenset[tuple[str, str]]
Cluster = list[int]

_EDGE = ""
_NONE = np.empty(0, np.int64)


def check_disjoint(
    development: Sequence[Request], test: Sequence[Request]
) -> list[tuple[int, int]]:
    """Return the near-duplicates as sorted pairs (number in development, number in test)."""
    owners, first = _owners([*development, *test]), len(development)
    similar = _Similar(list(owners))
    sides = [
        ([n for n in owners[text] if n < first], [n - first for n in owners[text] if n >= first])
        for text in similar.texts
    ]
    pairs: list[tuple[int, int]] = []
    for number, (mine, theirs) in enumerate(sides):
        pairs += product(mine, theirs)
        for other in set(chain.from_iterable(map(np.ndarray.tolist, similar.candidates(number)))):
            if similar(number, other):
                pairs += [*product(mine, sides[other][1]), *product(sides[other][0], theirs)]
    return sorted(pairs)


def cluster_requests(requests: Sequence[Request], grouped: bool) -> list[Cluster]:
    """Gather requests that must stay together: near-duplicates, and if ``grouped`` also groups.

    Clusters hold the requests' numbers, ascending, and are sorted by their first number.
    """
    owners = _owners(requests)
    similar = _Similar(list(owners))
    firsts = np.array([owners[text][0] for text in similar.texts], np.int64)
    labels = np.arange(len(requests))  # Requests with the same label are in one cluster.
    for numbers in owners.values():
        labels[numbers] = numbers[0]

    def join(one: int, other: int) -> None:
        labels[labels == labels[other]] = labels[one]

    for text, first in enumerate(firsts.tolist()):
        for others in similar.candidates(text):
            while True:
                others = others[labels[firsts[others]] != labels[first]]
                places = (n for n, other in enumerate(others.tolist()) if similar(text, other))
                if (place := next(places, None)) is None:
                    break
                join(first, firsts[others[place]])
                others = others[place + 1 :]
    groups: dict[str, int] = {}
    for number, request in enumerate(requests):
        if grouped and request.group is not None:
            join(groups.setdefault(request.group, number), number)
    clusters: dict[int, Cluster] = defaultdict(list)
    for number, label in enumerate(labels.tolist()):
        clusters[label].append(number)
    return list(clusters.values())


def _owners(requests: Sequence[Request]) -> dict[Bigrams, list[int]]:
    """Map each different set of bigrams to the numbers of its requests."""
    owners: dict[Bigrams, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        words = [_EDGE]
        for text in (*(one["content"] for one in request.messages), *request.choices):
            words += [*split_words(text), _EDGE]
        owners[frozenset(pairwise(words))].append(number)
    return owners


class _Similar:
    """Finds near-duplicates among different sets of bigrams, through an index of rare bigrams.

    ``texts`` are the sets sorted by size; numbers are places in it. Bigrams are numbered too, the
    rarest first. Take a set of n bigrams and a near-duplicate of m bigrams that is not larger. They
    share one of the n // 5 + 1 rarest of the first set, which is also one of the m // 9 + 1 rarest
    of the second (Bayardo et al. 2007; Xiao et al. 2008).
    """

    def __init__(self, texts: list[Bigrams]) -> None:
        self.texts = sorted(texts, key=len)
        self._sizes = [len(text) for text in self.texts]
        counts = Counter(chain.from_iterable(self.texts))
        rarest = sorted(counts, key=counts.__getitem__)
        numbers = {bigram: number for number, bigram in enumerate(rarest)}
        self._bigrams = [frozenset(numbers[bigram] for bigram in text) for text in self.texts]
        index: dict[int, list[int]] = defaultdict(list)
        for number, text in enumerate(self._bigrams):
            for bigram in sorted(text)[: len(text) // 9 + 1]:
                index[bigram].append(number)
        self._index = {bigram: np.array(holders) for bigram, holders in index.items()}

    def candidates(self, number: int) -> Iterator[NDArray[np.int64]]:
        """Give smaller numbers that include all near-duplicates of ``number``; some repeat."""
        text = sorted(self._bigrams[number])
        start = bisect_left(self._sizes, 4 * len(text) / 5)
        for place in range(len(text) // 5 + 1):
            # If this is the first shared bigram, those before it are not shared.
            stop = bisect_right(self._sizes, (5 * len(text) - 9 * place) / 4, hi=number)
            numbers = self._index.get(text[place], _NONE)
            first, last = numbers.searchsorted((start, stop))
            yield numbers[first:last]

    def __call__(self, one: int, other: int) -> bool:
        """Return whether shared / (all different) is at least 4 / 5."""
        first, second = self._bigrams[one], self._bigrams[other]
        return 9 * len(first & second) >= 4 * (len(first) + len(second))
