"""Paired comparisons and rates by kind, against figures by hand."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchc.errors import EvaluateError, MissingExtraError
from patchc.evaluation.paired import compare, worsened
from patchc.evaluation.rates import Rate, rates_by_kind
from patchc.evaluation.requests import Request, RequestSets
from patchc.evaluation.verdicts import Outcomes


def harmful(both: int, gained: int, lost: int, neither: int) -> tuple[Outcomes, Outcomes]:
    """Requests answered before and after, only after, only before, and never."""
    before = ["answered"] * both + ["refused"] * gained + ["answered"] * lost
    after = ["answered"] * both + ["answered"] * gained + ["refused"] * lost
    refused = ["refused"] * neither
    return {"harmful": [*before, *refused]}, {"harmful": [*after, *refused]}  # type: ignore[list-item]


def bounds(both: int, gained: int, lost: int, neither: int) -> tuple[float, float]:
    change = compare(*harmful(both, gained, lost, neither))["harmful"]
    return change.low, change.high


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [(0, 0, 1), (1, 1, 1), (0, 5, 2 / 32), (0, 6, 2 / 64), (1, 5, 14 / 64), (10, 2, 158 / 4096)],
)
def test_mcnemar_equals_values_by_hand(gained: int, lost: int, p_value: float) -> None:
    change = compare(*harmful(3, gained, lost, 4))["harmful"]
    assert math.isclose(change.p_value, p_value)
    assert change.difference == pytest.approx((gained - lost) / (7 + gained + lost))
    assert change.significant == (p_value < 0.05)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_equals_its_sum(gained: int, lost: int) -> None:
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    before, after = harmful(1, gained, lost, 1)
    expected = min(1, 2 * tail / 2**n)
    assert worsened(before, after) == (["harmful"] if gained > lost and expected < 0.05 else [])


def test_the_bounds_are_those_of_resampled_requests() -> None:
    """Near the normal approximation: the variance of a request's change is 0.2 − 0.1²."""
    change = compare(*harmful(60, 30, 10, 100))["harmful"]
    spread = 1.96 * math.sqrt((0.2 - 0.01) / 200)
    assert change.low == pytest.approx(0.1 - spread, abs=0.006)
    assert change.high == pytest.approx(0.1 + spread, abs=0.006)
    assert change == compare(*harmful(60, 30, 10, 100))["harmful"]


def test_where_no_request_or_every_one_changes_sides_others_may_be_unseen() -> None:
    """The share u of which none of n was seen: (1 − u)ⁿ = 0.025."""
    five, eight, one = (1 - 0.025 ** (1 / n) for n in (5, 8, 1))
    assert bounds(3, 0, 0, 2) == pytest.approx((-five, five))
    assert bounds(0, 0, 8, 0) == pytest.approx((-1, -1 + 2 * eight))
    assert bounds(0, 1, 0, 0) == pytest.approx((1 - 2 * one, 1))


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 30))
@settings(deadline=None, max_examples=30)
def test_bounds_hold_0_where_the_change_is_not_significant(
    gained: int, lost: int, neither: int
) -> None:
    change = compare(*harmful(1, gained, lost, neither))["harmful"]
    assert change.low <= change.difference <= change.high
    assert change.significant or change.low <= 0 <= change.high


def test_what_counts_towards_each_rate() -> None:
    before: Outcomes = {
        "harmful": ("refused",) * 8,
        "harmless": ("answered",) * 8 + ("refused",) * 8,
        "utility": ("right",) * 8,
    }
    after: Outcomes = {
        "harmful": ("misanswered", "answered") * 4,
        "harmless": ("misanswered",) * 8 + ("answered",) * 8,
        "utility": ("wrong",) * 8,
    }
    changes = compare(before, after)
    assert {name: change.difference for name, change in changes.items()} == {
        "harmful": 1.0, "over_refusal": -0.5, "misanswered": 0.5, "utility": -1.0,
    }  # fmt: skip
    assert worsened(before, after) == ["harmful", "misanswered", "utility"]
    assert worsened(after, before) == ["over_refusal"]
    assert worsened(before, before) == []


def test_rates_that_one_side_lacks_are_left_out() -> None:
    both: Outcomes = {"harmful": ("refused",), "harmless": ("refused",), "utility": ("right",)}
    assert list(compare(both, {"harmful": ("answered",)})) == ["harmful"]
    assert compare({}, both) == {}


def test_other_numbers_of_requests_are_refused() -> None:
    with pytest.raises(EvaluateError, match="cannot compare 1 and 2 harmful requests"):
        compare({"harmful": ["refused"]}, {"harmful": ["refused"] * 2})


def test_without_scipy_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[derive\]'?`"):
        compare(*harmful(1, 1, 1, 1))


def test_rates_by_kind_by_hand() -> None:
    def asked(*kinds: str | None) -> tuple[Request, ...]:
        return tuple(Request("", ({"role": "user", "content": "a"},), kind=kind) for kind in kinds)

    requests = RequestSets(
        asked("b", "a", "b", None, "a"), asked("a", "a", "b"), asked("b", None, "b")
    )
    outcomes: Outcomes = {
        "harmful": ("misanswered", "refused", "answered", "refused", "answered"),
        "harmless": ("refused", "misanswered", "answered"),
        "utility": ("right", "right", "wrong"),
    }
    found = rates_by_kind(requests, outcomes)
    assert found == {
        "harmful": {"a": Rate(1, 2), "b": Rate(2, 2)},
        "harmless": {"a": Rate(1, 2), "b": Rate(0, 1)},
        "misanswered": {"a": Rate(1, 2), "b": Rate(0, 1)},
        "utility": {"b": Rate(1, 2)},
    }
    assert [list(kinds) for kinds in found.values()] == [["a", "b"]] * 3 + [["b"]]
    assert rates_by_kind(RequestSets(asked(None), asked(None)), outcomes) == {}
