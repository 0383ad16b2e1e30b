"""Splitting requests: near-duplicates, groups, kinds and the share, against brute force."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchc.errors import EvaluateError, UsageError
from patchc.evaluation.near_duplicates import check_disjoint
from patchc.evaluation.requests import Request
from patchc.evaluation.splits import is_learned_from, split_requests

ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]


def request(text: str, kind: str | None = None, group: str | None = None) -> Request:
    messages = ({"role": "user", "content": text},)
    return Request(source="here", messages=messages, kind=kind, group=group)


def distinct(*kinds: str | None) -> list[Request]:
    return [request(f"w{number}", kind) for number, kind in enumerate(kinds)]


def near(one: Request, other: Request) -> bool:
    """The oracle, for texts in which words are what white space parts."""
    first, second = (
        set(zip(["^", *words], [*words, "$"], strict=True))
        for words in (request.prompt.lower().split() for request in (one, other))
    )
    return 5 * len(first & second) >= 4 * len(first | second)


def clusters(requests: Sequence[Request], grouped: bool) -> list[set[int]]:
    parts = [{number} for number in range(len(requests))]
    for i, j in combinations(range(len(requests)), 2):
        one, other = requests[i], requests[j]
        if near(one, other) or (grouped and one.group is not None and one.group == other.group):
            together = [part for part in parts if part & {i, j}]
            parts = [part for part in parts if part not in together] + [set().union(*together)]
    return parts


@st.composite
def variants(draw: st.DrawFn) -> str:
    """Edits of a few long texts, so that similarities near the threshold are common."""
    size = draw(st.sampled_from([1, 3, 8, 9, 10, 17, 19, 28]))
    words = [f"w{number}" for number in range(size)]
    for place in draw(st.lists(st.integers(0, size - 1), max_size=4)):
        words[place] = draw(st.sampled_from(["w0", "w1", "x", "y", ""]))
    return " ".join(word for word in words if word) or "z"


REQUESTS = st.lists(
    st.builds(
        request,
        variants(),
        st.sampled_from([None, "a", "b", "c"]),
        st.sampled_from([None, None, None, "g1", "g2", "g3", "g4"]),
    ),
    max_size=25,
)
SHARES = st.floats(0.05, 0.95)


@given(REQUESTS, SHARES, st.integers(0, 5))
def test_a_split_parts_the_requests_and_no_near_duplicates(
    requests: list[Request], share: float, seed: int
) -> None:
    grouped = len({request.group for request in requests} - {None}) >= 4
    parts = clusters(requests, grouped)
    if len(parts) < 2:
        with pytest.raises(EvaluateError, match=f"leaves {len(parts)} cluster"):
            split_requests(requests, share, seed)
        return
    split = split_requests(requests, share, seed)
    assert sorted(split.development + split.test) == list(range(len(requests)))
    assert list(split.development) == sorted(split.development)
    assert list(split.test) == sorted(split.test)
    assert split.development
    assert split.test
    assert split.clusters == len(parts)
    assert split.grouped_by == ("group" if grouped else None)
    for part in parts:
        assert part <= set(split.development) or part <= set(split.test)
    assert split_requests(requests, share, seed) == split


@given(REQUESTS, REQUESTS)
def test_near_duplicates_across_given_splits_are_found(
    development: list[Request], test: list[Request]
) -> None:
    pairs = product(range(len(development)), range(len(test)))
    wanted = [(i, j) for i, j in pairs if near(development[i], test[j])]
    assert check_disjoint(development, test) == wanted


@pytest.mark.parametrize("size", [3, 7, 8, 15, 23])
def test_near_duplicates_whose_rare_bigrams_differ_are_found(size: int) -> None:
    """A stretch said twice adds one bigram, rarer than all those shared: exactly 0.8 is common."""
    rng = random.Random(size)
    requests = []
    for _ in range(80):
        words = [f"w{number}" for number in range(size)]
        for _ in range(rng.randrange(size // 7 + 2)):
            start, stop = sorted(rng.sample(range(len(words) + 1), 2))
            words[stop:stop] = words[start:stop]
        requests.append(request(" ".join(words)))
    pairs = product(range(len(requests)), repeat=2)
    wanted = [(i, j) for i, j in pairs if near(requests[i], requests[j])]
    assert check_disjoint(requests, requests) == wanted


@given(st.lists(st.integers(1, 6), min_size=2, max_size=7), SHARES, st.integers(0, 5))
def test_the_share_is_as_near_as_whole_clusters_allow(
    sizes: list[int], share: float, seed: int
) -> None:
    texts = [f"w{number}" for number, size in enumerate(sizes) for _ in range(size)]
    split = split_requests([request(text) for text in texts], share, seed)
    sums = {sum(chosen) for n in range(1, len(sizes)) for chosen in combinations(sizes, n)}
    wanted = share * len(texts)
    nearest = min(abs(total - wanted) for total in sums)
    assert abs(len(split.development) - wanted) == nearest


@given(st.lists(st.sampled_from("abcde"), min_size=2, max_size=30), SHARES, st.integers(0, 5))
def test_kinds_are_on_both_sides_in_their_share(kinds: list[str], share: float, seed: int) -> None:
    split = split_requests(distinct(*kinds), share, seed)
    development = [kinds[number] for number in split.development]
    for kind in set(kinds):
        if kinds.count(kind) > 1:
            assert 0 < development.count(kind) < kinds.count(kind)


def test_kinds_of_even_size_are_shared_evenly() -> None:
    kinds = ["a"] * 50 + ["b"] * 20 + [None] * 30
    split = split_requests(distinct(*kinds), 0.4, 1)
    development = [kinds[number] for number in split.development]
    assert [development.count(kind) for kind in ("a", "b", None)] == [20, 8, 12]


def test_clusters_of_several_kinds_leave_every_kind_on_both_sides() -> None:
    """Kind z is only found together with a and with c, which have others of their own."""
    kinds = ["a", "z", "c", "z", "a", "a", "c", "c"]
    groups = ["1", "1", "2", "2", "3", "3", "4", "4"]
    requests = [
        request(f"w{number}", kind, group)
        for number, (kind, group) in enumerate(zip(kinds, groups, strict=True))
    ]
    for seed in range(20):
        split = split_requests(requests, 0.5, seed)
        for side in (split.development, split.test):
            assert {kinds[number] for number in side} == {"a", "c", "z"}


def test_seeds_give_different_splits_that_reach_every_request() -> None:
    requests = distinct(*[None] * 40)
    splits = [split_requests(requests, 0.5, seed) for seed in range(20)]
    assert len({split.development for split in splits}) == 20
    assert {number for split in splits for number in split.development} == set(range(40))


def test_a_split_does_not_depend_on_the_interpreter() -> None:
    code = """
from patchc.evaluation.requests import Request
from patchc.evaluation.splits import split_requests

requests = [
    Request("", ({"role": "user", "content": f"w{n % 50}"},), kind=f"k{n % 7}", group=f"g{n // 5}")
    for n in range(60)
]
print(split_requests(requests, 0.4, 1))
"""
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(printed) == 1


def test_equal_words_are_near_duplicates_whatever_the_case_and_points() -> None:
    texts = ["How do I brew tea?", "how do i BREW, tea", "How do I brew coffee?", "?!", "…"]
    requests = [request(text) for text in texts]
    assert split_requests(requests, 0.5, 1).clusters == 3
    assert check_disjoint(requests[:1], requests[1:]) == [(0, 0)]
    assert check_disjoint(requests[3:4], requests[4:]) == [(0, 0)]


def test_all_messages_of_a_conversation_count() -> None:
    def conversation(*turns: str) -> Request:
        roles = ("user", "assistant", "user")
        messages = [{"role": r, "content": c} for r, c in zip(roles, turns, strict=True)]
        return Request(source="here", messages=tuple(messages))

    tea = conversation("How do I brew tea?", "With hot water.", "And then?")
    same = conversation("How do I brew tea?", "With hot water!", "and then")
    ink = conversation("How do I mix good ink?", "With soot.", "And then?")
    assert check_disjoint([tea], [same, ink, request("And then?")]) == [(0, 0)]


def test_fewer_than_four_groups_are_not_kept_together() -> None:
    requests = [request(f"w{number}", group=f"g{number % 3}") for number in range(12)]
    split = split_requests(requests, 0.5, 1)
    assert split.grouped_by is None
    assert split.clusters == 12


def test_groups_of_requests_without_one_are_no_group() -> None:
    groups = ["g0", "g1", "g2", "g3", None, None]
    requests = [request(f"w{number}", group=group) for number, group in enumerate(groups)]
    assert split_requests(requests, 0.5, 1).clusters == 6


def test_one_cluster_cannot_be_split() -> None:
    text = "please tell me in a few plain words how one would brew {} tea at the old mill"
    requests = [request(text.format(ordinal)) for ordinal in ORDINALS]
    with pytest.raises(EvaluateError, match=r"8 requests .*at here\): .* 1 cluster .* your own"):
        split_requests(requests, 0.5, 1)


@pytest.mark.parametrize("share", [-0.5, 0, 1, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        split_requests(distinct("a", "b"), share, 1)


def test_many_requests_of_few_templates_are_split() -> None:
    """Index and joins where most requests share most of their words."""
    text = "please tell me in a few plain words how one would brew {} for {} at the old mill"
    requests = [request(text.format(f"a{n % 40}", f"b{n // 40}")) for n in range(1600)]
    others = [request(f"what is c{number}") for number in range(400)]
    split = split_requests(requests + others, 0.3, 1)
    assert split.clusters == 401
    assert len(split.development) == 400
    assert set(split.test) == set(range(1600))


@given(
    kinds=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    validation=st.floats(0.01, 0.99),
    seed=st.integers(0, 3),
)
def test_something_is_learned_from_and_something_is_not(
    kinds: list[int], validation: float, seed: int
) -> None:
    asked = [
        Request("f:1", ({"role": "user", "content": "x"},), kind=str(kind))
        for kind, count in enumerate(kinds)
        for _ in range(count)
    ]
    learned = is_learned_from(asked, "harmful", validation, seed)
    assert learned == is_learned_from(asked, "harmful", validation, seed)
    held = learned.count(False)
    if len(asked) > 1:
        assert 0 < held < len(asked)
    assert abs(held - validation * len(asked)) <= 1 + 0.5 * len(kinds)
