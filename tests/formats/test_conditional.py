"""Codec 3: round trips both ways, and equality with the page's decoder."""

from __future__ import annotations

from pathlib import Path

from conditional_cases import (
    Case,
    assert_round_trip,
    by_oracle,
    cases,
    example_case,
    late_cases,
)
from hypothesis import example, given, settings

SPEC = Path(__file__).parents[2] / "formats" / "SPEC.md"


@settings(deadline=None)
@given(cases() | cases(grouped=True) | late_cases())
@example(example_case())
def test_round_trip_and_the_page_s_decoder(case: Case) -> None:
    body = case.encode()
    assert_round_trip(case, body)
    expected = list(zip(case.positions.tolist(), case.steps.tolist(), strict=True))
    assert by_oracle(case, body, len(case.positions), revert=False) == expected
    assert by_oracle(case, body, len(case.positions), revert=True) == expected


def test_the_worked_example_is_coded_as_on_the_page() -> None:
    body = example_case().encode()
    assert body == bytes.fromhex("FA 8B 44 0C 34 09 01")
    assert f"`{body.hex(' ').upper()}`" in SPEC.read_text()
