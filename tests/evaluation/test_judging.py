"""What counts as refused, right and degenerate, and the intervals of the counts."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import patchc
from patchc.errors import EvaluateError, UsageError
from patchc.evaluation.judges import is_refused, open_judge
from patchc.evaluation.rates import Rate
from patchc.evaluation.texts import contains_answer, is_degenerate, shorten


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.2775328),
        (5, 10, 0.2365931, 0.7634069),
        (10, 10, 0.7224672, 1.0),
        (1, 1, 0.2065493, 1.0),
    ],
)
def test_wilson_intervals_equal_known_values(
    hits: int, total: int, low: float, high: float
) -> None:
    rate = Rate(hits, total)
    assert rate.value == hits / total
    assert math.isclose(rate.low, low, abs_tol=1e-6)
    assert math.isclose(rate.high, high, abs_tol=1e-6)


def test_an_interval_equals_a_published_one() -> None:
    """Newcombe (1998), method 3: 81 of 263."""
    rate = Rate(81, 263)
    assert (round(rate.low, 4), round(rate.high, 4)) == (0.2553, 0.3662)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_where_the_score_test_does(counts: tuple[int, int]) -> None:
    """Its ends are the shares p with |hits/n − p| = z √(p(1−p)/n): Wilson's definition."""
    rate = Rate(*counts)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    for end in (rate.low, rate.high):
        if 0 < end < 1:
            error = abs(rate.value - end) - 1.959963985 * math.sqrt(end * (1 - end) / rate.total)
            assert abs(error) < 1e-6


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        ("I'm sorry, but no.", True),
        ("I’m  sorry,\nbut no.", True),
        ("Well. I cannot\nhelp with that.", True),
        ("Sure! Mix sage with ash.", False),
        ("He was sorry that he could not come.", False),
        ("", False),
    ],
)
def test_refusals_are_found_by_their_phrases(reply: str, refused: bool) -> None:
    assert is_refused(reply) is refused


@pytest.mark.parametrize(
    ("reply", "answers", "right"),
    [
        ("The capital is PARIS.", ("Paris",), True),
        ("It is New-York, I think", ("new york",), True),
        ("parisian", ("Paris",), False),
        ("York is new", ("new york",), False),
        ("four", ("4", "four"), True),
        ("ﬁne, 1,000 cafés", ("fine", "cafes"), True),
        ("", ("a",), False),
        ("It costs 12.5, not more", ("12",), False),
        ("12,000 of them", ("12",), False),
        ("at 10:12", ("12",), False),
        ("at 10:12.", ("10:12",), True),
        ("It is 12.", ("12",), True),
        ("12, 13 and 14", ("12",), True),
        ("It is 1,200.", ("1200",), True),
        ("It is 1200", ("1,200",), True),
        ("1,200,300.5 m", ("1200300.5",), True),
        ("12,34,567", ("1234567",), True),
        ("किताब", ("कताब",), False),
        ("यह किताब है", ("किताब",), True),
        ("x\u0302 is the mean", ("x",), False),
        ("答案是東京。", ("東京",), True),
        ("答案是京東。", ("東京",), False),
        ("2024年です", ("2024",), True),
        ("เมืองหลวงคือกรุงเทพ", ("กรุงเทพ",), True),
        ("서울입니다", ("서울",), True),
        ("Paris \u2764\ufe0f France", ("Paris France",), True),
    ],
)
def test_answers_are_whole_words_in_a_row(
    reply: str, answers: tuple[str, ...], right: bool
) -> None:
    assert contains_answer(reply, answers) is right


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "  \n",
        "tea " * 8,
        "Sure . " + "stir it . " * 4,
        "one two three four five six " * 4 + "one two",
        "ha" * 20,
        "!" * 30,
        "毒" * 30,
        "a b c d e a c b e d b a c d e " * 3,
        "\u200b\u200b",
        "==========",
        "tea\n" * 8 + "=====",
    ],
)
def test_degenerate_replies_are_found(reply: str) -> None:
    assert is_degenerate(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I cannot help with that.",
        "no no no",
        "Sure!!!",
        "Mix the sage with the ash, the sap with the salt, and stir the whole.",
        "1. tea 2. cocoa 3. juice 4. punch 5. cider 6. water 7. milk",
        "tea " * 7,
        "yes",
        "1" + "0" * 27,
        "0." + "3" * 30,
        "Title\n==========",
        "Tea\n\n----------\n\nPour.",
    ],
)
def test_sound_replies_are_not_degenerate(reply: str) -> None:
    assert not is_degenerate(reply)


def judge(value: Any) -> Any:
    return open_judge(patchc.EvaluateOptions(judge=value))


def shouts(_prompts: Sequence[str], replies: Sequence[str]) -> list[bool]:
    return [reply.isupper() for reply in replies]


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("No.\n\nThat  is\tsecret.", "No. That is secret."),
        ("a\x1b[31mb\u202ec", "a[31mbc"),
        ("word " * 30, "word " * 15 + "word…"),
        ("", ""),
    ],
)
def test_a_reply_is_shown_as_one_short_line(reply: str, shown: str) -> None:
    assert shorten(reply) == shown


def test_a_function_judges() -> None:
    assert judge(shouts)(["a", "b"], ["NO", "yes"]) == ["refused", "answered"]


@pytest.mark.parametrize(
    "given",
    [
        [True, False],
        (1, 0),
        np.array([True, False]),
        np.array([1, 0]),
        [np.uint8(1), np.int64(0)],
        ["refused", "answered"],
        np.array(["refused", "answered"]),
        [True, "answered"],
    ],
)
def test_bools_exactly_0_and_1_and_the_texts_are_verdicts(given: Any) -> None:
    assert judge(lambda _p, _r: given)(["a", "b"], ["c", "d"]) == ["refused", "answered"]


def test_a_judge_may_tell_misanswered_replies() -> None:
    verdicts = ["misanswered", "refused", "answered"]
    assert judge(lambda _p, _r: verdicts)(["a", "b", "c"], ["d", "e", "f"]) == verdicts


def test_what_a_judge_does_to_its_lists_changes_no_reply() -> None:
    def tidies(prompts: list[str], replies: list[str]) -> list[bool]:
        replies[:] = [reply.strip() for reply in replies]
        prompts.clear()
        return [reply == "NO" for reply in replies]

    asked, kept = ["a", "b"], [" NO ", "yes"]
    assert judge(tidies)(asked, kept) == ["refused", "answered"]
    assert (asked, kept) == (["a", "b"], [" NO ", "yes"])


def test_a_function_is_found_by_name_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shouting_judge.py").write_text(
        "def shouts(prompts, replies):\n    return [reply.isupper() for reply in replies]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert judge("shouting_judge:shouts")(["a", "b"], ["NO", "yes"]) == ["refused", "answered"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("phrase", "must be phrases, module:function"),
        ("no_such_module:f", "cannot import"),
        ("math:no_such_function", "cannot import"),
        ("math:pi", "not a function but float"),
        ("hf:nowhere", "is no folder"),
        ("exiting_judge:f", "cannot import it"),
    ],
)
def test_an_unknown_judge_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exiting_judge.py").write_text("raise SystemExit(0)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        judge(name)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda _p, _r: [True], r"gave \[True\] for 2 replies"),
        (lambda _p, _r: ["yes", "no"], r"gave \['yes', 'no'\] for 2 replies"),
        (lambda _p, _r: ["Refused", "answered"], "gave"),
        (lambda _p, _r: "refused", "gave"),
        (lambda _reply: True, "failed: TypeError"),
        (lambda _p, _r: [True, None], "gave"),
        (lambda _p, _r: None, "failed: TypeError"),
        (lambda _p, _r: 1 / 0, "failed: ZeroDivisionError"),
        (lambda _p, _r: sys.exit(0), "failed: SystemExit"),
        (lambda _p, _r: [-1, 0], "gave"),
        (lambda _p, _r: [1.0, 0.0], "gave"),
        (lambda _p, _r: [2, True], "gave"),
        (lambda _p, _r: [np.int64(2), True], "gave"),
        (lambda _p, _r: np.array([1.0, 0.0]), "gave"),
    ],
)
def test_a_judge_that_does_not_judge_is_named(function: Any, message: str) -> None:
    with pytest.raises(EvaluateError, match=message) as caught:
        judge(function)(["a", "b"], ["c", "d"])
    for part in ("(prompts, replies)", "True (refused) or False (answered)", "'misanswered'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"batch_size": 1.5},
        {"limit": True},
        {"dtype": "int8"},
        {"device": "tpu"},
        {"system": " "},
        {"system": "\ud800"},
        {"judge": 3},
    ],
)
def test_bad_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        patchc.EvaluateOptions(**wrong)
