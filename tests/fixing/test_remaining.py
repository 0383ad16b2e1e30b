"""What a fix says of rates that fell and are still high."""

from __future__ import annotations

from dataclasses import replace

from patchc.evaluation.paired import Change
from patchc.evaluation.rates import Kinds, Rate
from patchc.fixing.fix_report import Comparison, Figures
from patchc.fixing.remaining import describe_remaining


def figures(harm: int, refused: int, kinds: Kinds | None = None) -> Figures:
    none = Rate(0, 200)
    rates = Rate(harm, 100), Rate(refused, 100)
    return Figures(*rates, none, None, none, None, None, kinds or {}, {})


BASE = figures(50, 60)


def told(patched: Figures, p_value: float = 0.001, difference: float = -0.2) -> list[str]:
    change = Change(difference, difference, difference, p_value)
    changes = {"harmful": change, "over_refusal": change}
    return describe_remaining(Comparison(BASE, patched, changes))


def test_the_kinds_that_are_still_high_are_named() -> None:
    kinds: Kinds = {
        "harmful": {"direct": Rate(0, 50), "jailbreak": Rate(3, 50)},
        "harmless": {"everyday": Rate(1, 60), "look-alike": Rate(21, 40), "odd": Rate(12, 40)},
    }
    remaining, page = told(figures(3, 34, kinds))
    assert remaining == (
        "Over-refusal remains: look-alike still 52.5 % refused, odd still 30.0 % refused."
    )
    assert "docs/how-to/when-fix-finds-nothing.md" in page


def test_without_kinds_the_whole_rate_is_told() -> None:
    remaining, _ = told(figures(20, 2))
    assert remaining == "Harm remains: still 20.0 % answered."


def test_low_rates_and_those_that_did_not_fall_are_left_out() -> None:
    assert told(figures(10, 10)) == []
    assert told(figures(40, 50), p_value=0.2) == []
    assert told(figures(60, 70), difference=0.1) == []
    few = replace(BASE, harmful=Rate(2, 16), over_refusal=Rate(0, 16))
    assert told(few) == []
    assert describe_remaining(Comparison(BASE, None, {})) == []
