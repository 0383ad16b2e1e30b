"""Recipe files that a stranger made: bounded in memory, and one error that names the place."""

from __future__ import annotations

import os
import re
import tracemalloc
from pathlib import Path

import pytest

import patchc
from patchc.errors import UsageError
from patchc.recipe import write_recipe
from patchc.recipe.plain_values import MOST_BYTES, parse_toml

MEGABYTE = "x" * 1_000_000
LAUGHS = "alpha: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{this}: &{this} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, this in zip("abcdefgh", "bcdefghi", strict=True)
)


def refusal(path: Path, content: str | bytes) -> str:
    """The message about a recipe file of this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as refused:
        patchc.read_recipe(path)
    message = str(refused.value)
    assert message.startswith(f"recipe {path}: ")
    assert len(message) < 1000
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS + "alpha: *i", "line 1, column 8: an anchor or alias"),
        ("alpha: *a", "line 1, column 8: an anchor or alias"),
        ('include: ["\\Ueeeeeeff"]', "an escaped character that does not exist"),
        ('include: ["\\U00110000"]', "an escaped character that does not exist"),
        ("overrides: &a [*a]", "an anchor or alias"),
        ("overrides:\n- {<<: {alpha: 1.0}, match: b}", "line 2, column 4: a merge key"),
        ("alpha: !!float 1", "line 1, column 8: a tag"),
        ('alpha: !!python/object/apply:os.system ["true"]', "a tag"),
        ("alpha: ! 1", "a tag"),
        ("include: !!set {a, b}", "a tag"),
        ("alpha: !!binary aGk=", "a tag"),
        ("alpha: 1.0\n---\nalpha: 2.0", "line 2, column 1"),
        ("alpha: 1.0\n...\n---\nalpha: 2.0", "another document"),
        ("alpha: " + 20 * "[" + 20 * "]", "nested more than 16 deep"),
        ("alpha: " + 100_000 * "[", "nested more than 16 deep"),
        ("overrides:\n- {match: a, alpha: 1.0, alpha: 2.0}", "line 2, column 26: the key 'alpha'"),
        ("overrides:\n- match: a\n  alpha: 1.0\n  match: b", "line 4, column 3: the key 'match'"),
        ("? [alpha]\n: 1", "unhashable key"),
        ("1: 2", "the key 1 is no text"),
        ("overrides: [{true: 1}]", "the key True of overrides[0] is no text"),
        ("alpha: 1" + 5000 * "0", f"line 1, column 8: 1{39 * '0'}… takes more than 64 bits"),
        ("seed: 36893488147419103232", "seed is 36893488147419103232; it takes more than 64 bits"),
        ("alpha: 1.0e+400", "alpha is inf"),
        ("alpha: 1e400", "alpha is the text '1e400'"),
        ("alpha: 1:30", "alpha is the text '1:30'"),
        ("alpha: 1:30.5", "alpha is the text '1:30.5'"),
        ("alpha: 017", "alpha is the text '017'"),
        ("alpha: 0x1F", "alpha is the text '0x1F'"),
        ("alpha: 0b11", "alpha is the text '0b11'"),
        ("alpha: 1_000.5", "alpha is the text '1_000.5'"),
        ("alpha: .inf", "alpha is the text '.inf'"),
        ("alpha: .NaN", "alpha is the text '.NaN'"),
        ("alpha: 2001-01-01", "alpha is the text '2001-01-01'"),
        ("seed: 0o17", "seed is '0o17'"),
        ("alpha: ~", "alpha is None"),
        ("alpha:", "alpha is None"),
        ("alpha: no", "alpha is False"),
        ('include: ["\\ud800"]', "include[0] is '\\ud800'; it holds half a character"),
        ('"\\ud800": 1', "the key '\\ud800' is no text"),
        ('alpha: "a\0b"', "unacceptable character #x0000"),
        ("\N{CYRILLIC SMALL LETTER A}lpha: 1.0", r"unknown key '\u0430lpha'"),
        ("al\N{ZERO WIDTH SPACE}pha: 1.0", r"unknown key 'al\u200bpha'"),
        ('"\\e[31malpha": 1.0', r"unknown key '\x1b[31malpha'"),
        ("method: [ties]", "method is ['ties']"),
        ("method: {a: 1}", "method is {'a': 1}"),
        ("overrides: {match: a}", "overrides is {'match': 'a'}; it must be a list of tables"),
        ("overrides: [1]", "an override is 1; it must be a table"),
        ("overrides: [{match: [a], alpha: 1.0}]", "match is ['a']"),
        (f"scope: {MEGABYTE}", "scope is 'xxxx"),
        (f"overrides: {MEGABYTE}", "overrides is 'xxxx"),
        (f"overrides: [{{a: {MEGABYTE}}}]", "an override is {'a': 'xxxx"),
        ("alpha: 1.0\n".encode("utf-16"), "not UTF-8 text"),
        (b"alpha: 1.0 # \xff\n", "not UTF-8 text"),
    ],
)  # fmt: skip
def test_hostile_yaml(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert message in refusal(tmp_path / "recipe.yaml", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("alpha = inf", "alpha is inf"),
        ("alpha = nan", "alpha is nan"),
        ("alpha = 1e400", "alpha is inf"),
        ("alpha = 1" + 30 * "0", "alpha is 1000000000000000000000000000000; it takes more than 64"),
        ("beta = 1\nalpha = 1" + 5000 * "0", "line 2, 'alpha = 1000"),
        ("alpha = -" + 5000 * "1", "line 1, 'alpha = -1111"),
        ("seed = -9223372036854775809", "seed is -9223372036854775809; it takes more than 64 bits"),
        ("alpha = 1979-05-27", "alpha is datetime.date(1979, 5, 27); it must be a text, a number"),
        ("include = [07:32:00]", "include[0] is datetime.time(7, 32); it must be a text, a number"),
        ("alpha = " + 100_000 * "[", "nested too deep"),
        ("alpha = " + 20 * "[" + 20 * "]", "alpha[0][0][0]"),
        ("a" + 100_000 * ".a" + " = 1", "line 1, 'a.a.a"),
        ('"a"' + 100_000 * ' . "a"' + " = 1", "a key has more than 100 parts"),
        ("alpha = {a" + 100_000 * ".a" + " = 1}", "a key has more than 100 parts"),
        ("".join(f"[a{3000 * '.a'}.b{n}]\n" for n in range(300)), "a key has more than 100 parts"),
        ("alpha = 1\nalpha = 2", "not valid TOML"),
        ("overrides = [{match = 'a', alpha = 1, alpha = 2}]", "not valid TOML"),
        ('include = ["\\ud800"]', "not valid TOML"),
        ("alpha = 1 \0", "not valid TOML"),
        ("\N{CYRILLIC SMALL LETTER A}lpha = 1", "not valid TOML"),
        ('"\N{CYRILLIC SMALL LETTER A}lpha" = 1', r"unknown key '\u0430lpha'"),
        (f"{MEGABYTE} = 1", "unknown key 'xxxx"),
        (f"include = ['({MEGABYTE}']", "include: '(xxxx"),
        (f"overrides = [{{match = '({MEGABYTE}', alpha = 1}}]", "'(xxxx"),
        (f"overrides = [{{match = 'a', {MEGABYTE} = 1}}]", "unknown key 'xxxx"),
        ("alpha = 1\n".encode("utf-16"), "not UTF-8 text"),
    ],
)  # fmt: skip
def test_hostile_toml(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert message in refusal(tmp_path / "recipe.toml", content)


def test_a_file_larger_than_any_recipe_is_not_read(tmp_path: Path) -> None:
    for suffix in (".toml", ".yaml"):
        path = tmp_path / f"recipe{suffix}"
        path.touch()
        os.truncate(path, MOST_BYTES + 1)
        with pytest.raises(UsageError, match="it has more than 4,194,304 bytes"):
            patchc.read_recipe(path)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UsageError, match="it is a pipe, and a file is needed"):
        patchc.read_recipe(tmp_path / "pipe.yaml")
    with pytest.raises(UsageError, match="it is a device, and a file is needed"):
        patchc.read_recipe("/dev/zero")


def test_memory_is_in_proportion_to_the_file(tmp_path: Path) -> None:
    """Nine times nine times … nine texts would take gigabytes."""
    path = tmp_path / "recipe.yaml"
    tracemalloc.start()
    try:
        refusal(path, LAUGHS + "overrides: *i")
        refusal(path, "include: [" + 1000 * "[], " + "[" + 17 * "[")
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_yaml_file_has_so_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchc.recipe.yaml_text._MOST_VALUES", 10)
    (tmp_path / "recipe.yaml").write_text("include: [a, b, c, d, e, f, g]\n")
    assert len(patchc.read_recipe(tmp_path / "recipe.yaml").include) == 7
    assert "more than 10 values; write TOML" in refusal(
        tmp_path / "recipe.yaml", "include: [a, b, c, d, e, f, g, h]\n"
    )


def test_what_plain_files_hold_is_read_as_before(tmp_path: Path) -> None:
    texts = {
        "a.yaml": "alpha: -1.5\nbeta: .5\nseed: 0\nrescale: yes\ninclude: ['1:30', norm]\n",
        "b.yaml": '\N{ZERO WIDTH NO-BREAK SPACE}alpha: -1.5\nbeta: 5.0e-1\nseed: 0\nrescale: True\n'
        'include: ["1:30", norm]\n',
        "c.toml": "alpha = -1.5\nbeta = 5e-1\nseed = 0x0\nrescale = true\n"
        "include = ['1:30', 'norm'] # a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a\n",
    }  # fmt: skip
    expected = patchc.Recipe(alpha=-1.5, beta=0.5, seed=0, rescale=True, include=("1:30", "norm"))
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert patchc.read_recipe(tmp_path / name) == expected


def test_a_key_or_number_may_look_long_in_a_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    dots, digits = 120 * "a.", 2000 * "1"
    path.write_text(f"include = ['{dots}', \"\\\"{dots}\", '{digits}'] # {digits} {dots}\n")
    assert patchc.read_recipe(path).include == (dots, f'"{dots}', digits)
    assert re.search(patchc.read_recipe(path).include[0], dots)


def test_many_sentences_may_stand_in_a_line_of_a_text() -> None:
    text = 40 * "Be kind. " + "\n"
    assert parse_toml(f'system = """\n{text}"""\n') == {"system": text}


def test_a_written_recipe_shows_all_that_it_holds(tmp_path: Path) -> None:
    text = "a\x7f\u202e\u2028\U000e0041\u3164\n'" + r"\."
    recipe = patchc.Recipe(include=(text, "漢字", r"\.0\."))
    write_recipe(recipe, tmp_path / "recipe.toml")
    written = (tmp_path / "recipe.toml").read_text(encoding="utf-8")
    assert all(one.isprintable() or one == "\n" for one in written)
    assert "\u3164" not in written
    assert "漢字" in written
    assert patchc.read_recipe(tmp_path / "recipe.toml") == recipe
