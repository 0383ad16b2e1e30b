"""Expressions that would run away, and all others, which match what Python's own engine finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import patchc
from patchc import DeriveOptions
from patchc.errors import UsageError
from patchc.recipe import MergeOverride, MergeRecipe, Override, Recipe
from patchc.recipe.expressions import Expression
from patchc.selection.candidates import NameFilter

NAME = "model." + 4000 * "a" + "!"

SINGLE = st.sampled_from(
    ["a", "b", "A", "é", ".", "[ab]", "[^a]", "[a-c1]", r"\d", r"\w", r"\S", r"\.", "^", "$",
     r"\b", r"\B", r"\A", r"\Z", "(?i:a)", "(?-i:A)", "", "(?<=a)", "(?<![ab]c)", "(?!)"]
)  # fmt: skip
REPEATS = ["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{0,2}?", "{2,}"]
EXPRESSIONS = st.recursive(
    SINGLE,
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format)
        | st.tuples(inner, st.sampled_from(REPEATS)).map("({0[0]}){0[1]}".format)
        | inner.map("(?={})".format)
        | inner.map("(?!{})".format)
    ),
    max_leaves=8,
)
FLAGS = st.sampled_from(["", "(?i)", "(?s)", "(?m)", "(?a)"])


@given(flags=FLAGS, text=EXPRESSIONS, name=st.text("abcA1.\né", max_size=8))
@example(flags="", text="(?:|a)*b", name="aab")
@example(flags="", text="(a|ab)(c|bcd)$", name="abcd")
@example(flags="", text="(?:^a)*?$", name="a\n")
@example(flags="(?m)", text="$(?!\n)", name="a\nb")
def test_an_expression_matches_what_re_finds(flags: str, text: str, name: str) -> None:
    # Behind another character, since an expression without repetition goes to re itself.
    expected = re.search(f"{flags}(?:x*)(?:{text})", name) is not None
    assert Expression(f"{flags}(?:x*)(?:{text})").matches(name) is expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(a+)+$", False),
        ("^model.(a+)+$", False),
        ("(a|aa)+$", False),
        ("(a|a)*$", True),
        ("(.*a){25}c", False),
        ("^model.(((a*)*)*)*c", False),
        ("(?:a?){4000}a{4000}!", True),
        ("(?:a?){4000}a{4001}!", False),
        ("(x+x+)+y", False),
        ("((a{1000}){1000}){1000}", False),
        ("(?:(?:){1000000}){1000000}", True),
        ("(?:.*a)*" * 50 + "z", False),
        ("(?:a|b|c|ab|bc)" * 2000, True),
        ("^(?=(.*a)+$)", False),
        (r"(?<=\.)(?!(a+)+!)a", False),
    ],
)
def test_an_expression_that_would_run_away_ends(text: str, found: bool) -> None:
    override = Override(text, alpha=1.0)
    assert override.matches(NAME) is found
    assert (Recipe(overrides=(override,)).for_tensor(NAME).alpha == 1.0) is found
    assert NameFilter(include=(text,)).matches(NAME) is found
    assert NameFilter(exclude=(text,)).matches(NAME) is not found
    merge = MergeRecipe("ties", overrides=(MergeOverride(text, lambda_=2.0),))
    assert (merge.for_tensor(NAME).lambda_ == 2.0) is found


@pytest.mark.parametrize(
    "text", ["^(?:.(?:.(?:.*q)?x)*)*z", "(?=(?=(?=a*c)a*c)a*c)a", ".*" * 30_000]
)
def test_one_that_takes_too_many_steps_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"takes too long to match 'model\.aaaa") as refused:
        NameFilter(include=(text,)).matches(NAME)
    assert repr(text[:10])[:-1] in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (r"(a)\\1", "a reference to a group"),
        ("(a)(?(1)b|c)", "a condition on a group"),
        ("(?>a)", "an atomic group"),
        ("a*+", "possessive repetition"),
        ("(?<=(a+)+!)b", "look-behind requires fixed-width"),
        ("[[a]", "Possible nested set at position 1, which later versions of Python"),
        ("[", "unterminated character set"),
        (5000 * "(" + 5000 * ")", "recursion"),
        ("a{99999999999999999999}", "too large"),
        ("(?i)[\\x00-\\U0010ffff]", "a range of more than 1,024 letters in both cases"),
        (70_000 * "a", "has more than 65,536 letters"),
        ("(" + 60_000 * "x", "is not a regular expression"),
    ],
)
def test_what_is_refused_is_refused_with_its_key(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "recipe.yaml"
    quoted = text.replace("\\\\", "\\")
    path.write_text(f"include: ['a', '{quoted}']\n")
    with pytest.raises(UsageError, match=f"recipe.yaml: include: .*{why}") as refused:
        patchc.read_recipe(path)
    assert len(str(refused.value)) < 500
    path.write_text(f"overrides:\n- match: '{quoted}'\n  alpha: 1.0\n")
    with pytest.raises(UsageError, match=f"recipe.yaml: .*{why}") as refused:
        patchc.read_recipe(path)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("key", ["include", "exclude"])
@pytest.mark.parametrize("kind", [Recipe, lambda **given: MergeRecipe("dare", **given)])
def test_an_expression_that_is_none_is_refused_by_its_key(kind: Any, key: str) -> None:
    with pytest.raises(UsageError, match=rf"^{key}: '\(' is not a regular expression"):
        kind(**{key: ("a", "(")})
    with pytest.raises(UsageError, match=rf"^{key}: '\(' is not a regular expression"):
        DeriveOptions(**{key: ("(",)})
