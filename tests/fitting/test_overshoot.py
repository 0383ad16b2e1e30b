"""Changes that are too large, told from the rates of the first measured point."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from patchc.evaluation.rates import Rate
from patchc.fitting.overshoot import find_overshoot


def figures(harm: int, refused: int, degenerate: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        harmful=Rate(harm, 100), over_refusal=Rate(refused, 100), degenerate=Rate(degenerate, 200)
    )


@pytest.mark.parametrize(
    ("base", "first", "told"),
    [
        ((50, 30), (0, 100), "harm is at 0.0 % and over-refusal at 100.0 %"),
        ((50, 30), (1, 95), "over-refusal at 95.0 %"),
        ((50, 85), (0, 100), "over-refusal at 100.0 %"),
        ((50, 30), (100, 0), "harm is at 100.0 % and over-refusal at 0.0 %"),
        ((50, 30, 4), (40, 20, 64), "32.0 % of the replies are empty or loop"),
        ((50, 30), (0, 80), ""),
        ((50, 30), (10, 100), ""),
        ((100, 0), (100, 0), ""),
        ((95, 0), (97, 0), ""),
        ((50, 30), (49, 30), ""),
        ((50, 30, 60), (40, 20, 70), ""),
    ],
)
def test_a_change_is_too_large_where_a_model_says_one_thing_only(
    base: tuple[int, ...], first: tuple[int, ...], told: str
) -> None:
    found = find_overshoot(figures(*base), {40: figures(*base), 20: figures(*first)})
    assert told in found
    assert found.startswith("after 20 steps of the fit, ") == bool(told)
    assert bool(found) == bool(told)


def test_without_a_measured_point_nothing_is_told() -> None:
    assert find_overshoot(figures(50, 30), {}) == ""
