"""Expressions that would run away, and all others, which match what re finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import patchc
from patchc import DeriveOptions
from patchc.errors import UsageError
from patchc.fitting.scales import exact_match
from patchc.json_values import has_half_character
from patchc.recipe import MergeOverride, MergeRecipe, Override, Recipe
from patchc.recipe.expressions import Expression
from patchc.selection.candidates import NameFilter

NAME = "model." + 4000 * "a" + "!"

SINGLE = st.sampled_from(
    ["a", "b", "A", ".", "[ab]", "[^a]", "[a-c1]", r"\d", r"\w", r"\S", r"\.", "^", "$", r"\b",
     r"\B", r"\A", "(?i:a)", "(?-i:A)", ""]
)  # fmt: skip
REPEATS = ["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{0,2}?", "{2,}"]
EXPRESSIONS = st.recursive(
    SINGLE,
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format)
        | st.tuples(inner, st.sampled_from(REPEATS)).map("({0[0]}){0[1]}".format)
    ),
    max_leaves=8,
)


@given(
    flags=st.sampled_from(["", "(?i)", "(?s)"]),
    text=EXPRESSIONS,
    name=st.text("abcA1.", max_size=8),
)
@example(flags="", text="(?:|a)*b", name="aab")
@example(flags="", text="(a|ab)(c|bcd)$", name="abcd")
def test_an_expression_matches_what_pythons_own_engine_finds(
    flags: str, text: str, name: str
) -> None:
    assume(name or r"\B" not in text)  # which Python finds in the empty text from 3.14 on
    expected = re.search(flags + text, name) is not None
    assert Expression(flags + text).matches(name) is expected


@given(name=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), other=st.text())
def test_a_name_written_as_an_expression_matches_itself_alone(name: str, other: str) -> None:
    """As fitted recipes list tensors."""
    assume(not has_half_character(other) and "\n" not in other)
    assert Expression(exact_match(name)).matches(name)
    assert Expression(exact_match(name)).matches(other) is (other == name)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(a+)+$", False),
        ("^model.(a+)+$", False),
        ("(a|aa)+$", False),
        ("(a|a)*$", True),
        ("(.*a){25}c", False),
        ("^model.(((a*)*)*)*c", False),
        ("(?:a?){1000}a{1000}!", True),
        ("(x+x+)+y", False),
        ("(?:.*a)*" * 50 + "z", False),
        ("(?:a|b|c|ab|bc)" * 2000, True),
        (".*" * 30_000, True),
        ("^(?:.(?:.(?:.*q)?x)*)*z", False),
        (5000 * "(" + 5000 * ")", True),
        ("(?i)[\\x{0}-\\x{10ffff}]+$", True),
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
    ("text", "why"),
    [
        (r"(a)\\1", r"invalid escape sequence: \\1"),
        ("(?=a)b", "look-around and references to groups are not among them"),
        ("(?<!a)b", "look-around and references to groups are not among them"),
        ("(?>a)", "invalid perl operator"),
        ("a*+", "bad repetition operator"),
        ("[", r"missing \]"),
        ("a{9999}", "invalid repetition size"),
        (r"layers\.\d{,2}\.", r"write a repetition as \{2\}, \{0,2\} or \{2,\}"),
        ("a{9999999999}", "write a repetition as"),
        ("a{1,9999999999}", "write a repetition as"),
        ("a{9999999999,}", "write a repetition as"),
        ("((a{1000}){1000}){1000}", "invalid repetition size"),
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


def test_half_a_character_is_refused() -> None:
    with pytest.raises(UsageError, match="half a character"):
        Expression("a\ud83d")


@pytest.mark.parametrize("key", ["include", "exclude"])
@pytest.mark.parametrize("kind", [Recipe, lambda **given: MergeRecipe("dare", **given)])
def test_an_expression_that_is_none_is_refused_by_its_key(kind: Any, key: str) -> None:
    with pytest.raises(UsageError, match=rf"^{key}: '\(' is not a regular expression"):
        kind(**{key: ("a", "(")})
    with pytest.raises(UsageError, match=rf"^{key}: '\(' is not a regular expression"):
        DeriveOptions(**{key: ("(",)})
