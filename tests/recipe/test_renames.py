"""Rules OLD=NEW: what they make of names, against Python's own engine, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import normal, write_file

from patchc.checkpoint import open_checkpoint
from patchc.errors import UsageError
from patchc.recipe import renames
from patchc.recipe.renames import Renames

NAMES = ["lm_head.weight", "model.layers.0.a=b", "model.layers.10.up.weight", "model.norm.weight"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {name: normal((2,), "BF16", 1) for name in NAMES}
    return write_file(tmp_path_factory.mktemp("base") / "base.safetensors", weights)


def _rewrite(model: Path, *rules: str) -> list[str]:
    with open_checkpoint(model) as base:
        found = Renames(rules).of(base).by_base
    return [found[name] for name in NAMES]


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("^=module.", "^", "module."),
        (r"^model\.=", r"^model\.", ""),
        (r"\.(\d+)\.=.\1._orig_mod.", r"\.(\d+)\.", r".\1._orig_mod."),
        (r"^(m)(odel)=\2\1\\", r"^(m)(odel)", r"\2\1\\"),
        (r"(x)?\.weight$=\1=w", r"(x)?\.weight$", r"\1=w"),
        (r"a\=b=c\\d=", r"a\=b", r"c\\d="),
        (r"[^\\]\.=.", r"[^\\]\.", "."),
        ("e=E", "e", "E"),
        ("(?i)LM_=é", "(?i)LM_", "é"),
    ],
)
def test_a_rule_replaces_the_first_match(model: Path, rule: str, old: str, new: str) -> None:
    assert _rewrite(model, rule) == [re.sub(old, new, name, count=1) for name in NAMES]


PARTS = st.sampled_from([r"\.", "e", "[lm]", r"\d+", "^", "(?:o|r)", "$", "w?"])


@given(
    rules=st.lists(
        st.tuples(
            st.lists(PARTS, min_size=1, max_size=3).map("".join),
            st.sampled_from(["", "x", r"<\1>", r"\1\1"]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_rules_apply_in_turn(model: Path, rules: list[tuple[str, str]]) -> None:
    expected, matched = NAMES, True
    for old, new in rules:
        matched &= any(re.search(old, name) for name in expected)
        expected = [re.sub(f"({old})", new, name, count=1) for name in expected]
    given = [f"({old})={new}" for old, new in rules]
    if matched and len({*expected}) == len(NAMES):
        assert _rewrite(model, *given) == expected
    else:
        with pytest.raises(UsageError, match=r"matches no tensor|both become"):
            _rewrite(model, *given)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        (["model"], r"rename 'model': not of the form OLD=NEW; write \^ for the start"),
        (["=module."], "not of the form OLD=NEW"),
        ([r"a\=b"], "not of the form OLD=NEW"),
        (["[=x"], r"rename '\[=x': '\[' is not a regular expression of RE2"),
        (["(?=a)=x"], "is not a regular expression of RE2"),
        (["(((a{1000}){1000}){1000})=x"], "invalid repetition size"),
        ([f"{'(a{900})' * 200}=x"], "pattern too large"),
        ([f"{'a' * 4097}=x"], "has more than 4,096 letters"),
        ([f"a={'x' * 4097}"], "NEW has more than 4,096 letters"),
        (["a\ud83d=x"], "half a character"),
        ([r"(a)=\2"], "NEW refers to group 2, and OLD has 1"),
        ([r"a=\d"], r"NEW holds '\\\\d'; write \\1 to \\9"),
        (["a=x\\"], r"NEW holds '\\\\'"),
        (["^=x"] * 65, "more than 64 rename rules"),
        ([7], "rename is 7; give texts"),
        (["layers.99=x"], r"rename 'layers.99=x' matches no tensor of \S+base.safetensors"),
        (["^model=x", "model=y"], "rename 'model=y' matches no tensor"),
        (["^.*=x"], "'lm_head.weight' and 'model.layers.0.a=b' both become 'x'"),
        (["(.)=" + r"\1" * 2000] * 3, "makes a name of .* letters"),
    ],
)
def test_what_is_no_rule_for_these_names_is_refused(
    model: Path, rules: list[str], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        _rewrite(model, *rules)
    assert len(str(refused.value)) < 600


def test_a_rule_that_would_run_away_ends(tmp_path: Path) -> None:
    name = 4000 * "a" + "!"
    path = write_file(tmp_path / "long.safetensors", {name: normal((2,), "BF16", 1)})
    with open_checkpoint(path) as base:
        for old in ("(a+)+$", "(a|aa)+$", "(?:.*a)*z"):
            with pytest.raises(UsageError, match="matches no tensor"):
                Renames([f"{old}=x"]).of(base)
        assert Renames(["(a+)+!=x"]).of(base).by_base == {name: "x"}


def test_rules_have_a_limit_on_time(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "MOST_SECONDS", -1.0)
    with pytest.raises(UsageError, match="the rules take more than -1 s for the names of"):
        _rewrite(model, "^=x")
