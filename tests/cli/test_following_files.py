"""Options that take the files after them: which words are theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from command_line import run

from patchc.cli.following_files import repeat_options
from patchc.cli.main import app
from patchc.errors import CheckpointError, UsageError

PARAMETERS = typer.main.get_command(app).get_command(None, "evaluate").params  # type: ignore[attr-defined, arg-type]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "-c", "--limit", "a=b"):
        Path(name).write_text("")
    Path("model").mkdir()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("model --turns a b --json", "model --turns a --turns b --json"),
        ("--turns a b model", "--turns a --turns b model"),
        ("--turns a model b", "--turns a model b"),
        ("--turns=a b a=b model", "--turns=a --turns b --turns a=b model"),
        ("--turns a b --together b a model", "--turns a --turns b --together b --together a model"),
        ("--turns a --turns b a", "--turns a --turns b --turns a"),
        ("--turns a none b", "--turns a none b"),
        ("--turns none a", "--turns none --turns a"),
        ("--turns a -c b", "--turns a -c b"),
        ("--turns a ./-c b", "--turns a --turns ./-c --turns b"),
        ("--turns -c a", "--turns -c --turns a"),
        ("--turns a --limit 3 model", "--turns a --limit 3 model"),
        ("--turns a -- b model", "--turns a -- b model"),
        ("--turns -- a model", "--turns -- --turns a model"),
        ("-- --turns a b", "-- --turns a b"),
        ("--system --turns a b", "--system --turns a b"),
        ("--harmful a b", "--harmful a b"),
        ("--json --turns a b", "--json --turns a --turns b"),
        ("--turns", "--turns"),
        ("", ""),
    ],
)
def test_the_words_of_an_option(words: str, expected: str) -> None:
    assert repeat_options(words.split(), PARAMETERS) == expected.split()


def test_what_is_no_file_is_a_model() -> None:
    asked = ("--harmful", "a", "--harmless", "b")
    code, _, err = run("evaluate", "model", "--turns", "a", "none.patchc", *asked)
    assert code == UsageError.exit_code
    assert "turns take one model, and there are 2: model, none.patchc" in err
    code, _, err = run("evaluate", "--turns", "a", *asked, "--", "--limit")
    assert code == CheckpointError.exit_code
    assert "--limit" in err
