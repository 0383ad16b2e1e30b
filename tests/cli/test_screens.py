"""Every command on a screen of 80 columns: nothing is cut, folded or too wide."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from command_line import run
from terminals import screens
from tiny_checkpoints import normal, nudge, write_model

from patchc.cli.layout import command_lines, fact_lines, table_lines
from patchc.cli.main import app

GROUP: Any = typer.main.get_command(app)
COMMANDS = GROUP.list_commands(None)
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
NAMES = [
    f"model.layers.{layer}.{module}.weight"
    for layer in range(2)
    for module in ("self_attn.q_proj", "mlp.gate_up_proj_of_experts")
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, components with scores, a second and a third version, in the working folder."""
    folder = tmp_path_factory.mktemp("screens")
    base = {name: normal((64, 100), "F32", n) for n, name in enumerate(NAMES)}
    versions = {"chat": base}
    for n, name in enumerate(("se", "osm", "chat-v2", "chat-v3")):
        before = versions["chat-v2"] if name == "chat-v3" else base
        versions[name] = {
            key: nudge(value, 0.3, 10 * n + i) for i, (key, value) in enumerate(before.items())
        }
    versions["other"] = {**base, "new.weight": base[NAMES[0]]}
    del versions["other"][NAMES[1]]
    for name, tensors in versions.items():
        write_model(folder / name, tensors, side_files={"config.json": f'{{"a": "{name}"}}'})
    for name in ("se", "osm"):
        scores = {key: np.abs(normal((64, 100), "F32", 7)) for key in NAMES}
        write_model(folder / name, scores, stem="scores")
    return folder


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    yield
    patch.undo()


BUILD = ("build", "chat", "--se", "se", "--osm", "osm")
STEPS: Sequence[Sequence[str]] = (
    (*BUILD, "-o", "fix.patchc", "--dry-run"),
    (*BUILD, "-o", "fix.patchc"),
    (*BUILD, "-o", "added.patchc", "--values", "additive"),
    ("diff", "chat", "chat-v2", "-o", "a.patchc", "--codec", "rice", "--weights-only"),
    ("diff", "chat-v2", "chat-v3", "-o", "b.patchc", "--codec", "rice", "--weights-only"),
    ("diff", "chat", "other", "-o", "update.patchc"),
    ("fold", "a.patchc", "b.patchc", "-o", "ab.patchc"),
    ("inspect", "fix.patchc"),
    ("inspect", "added.patchc"),
    ("inspect", "ab.patchc"),
    ("inspect", "update.patchc"),
    ("inspect", "a.patchc", "b.patchc"),
    ("inspect", "added.patchc", "b.patchc"),
    ("verify", "fix.patchc", "chat"),
    ("report", "fix.patchc", "-o", "a page of a rather long name.html"),
    ("status", "chat", "fix.patchc", "b.patchc"),
    ("annotate", "fix.patchc", "--name", "No recipe for a potion", "-o", "named.patchc"),
    ("apply", "fix.patchc", "chat", "-o", "a folder of a rather long name", "--dry-run"),
    ("apply", "fix.patchc", "chat", "-o", "a folder of a rather long name"),
    ("apply", "added.patchc", "chat", "-o", "chat-added", "--onto-descendant"),
    ("revert", "fix.patchc", "a folder of a rather long name", "-o", "again"),
    ("apply", "fix.patchc", "chat", "--in-place", "--dry-run"),
    ("apply", "fix.patchc", "chat", "--in-place"),
    ("revert", "fix.patchc", "chat", "--in-place"),
)
"""Commands in an order in which each finds what it needs."""


def words(text: str) -> set[str]:
    """What must not be cut: words, numbers, names; without what stands between them."""
    return {word.strip(";,") for word in text.split()} - {"\\"}


def fits(shown: str, width: int) -> None:
    for line in shown.splitlines():
        assert len(line.rstrip()) <= width, line


@pytest.mark.parametrize("width", [80, 120])
def test_helps(width: int) -> None:
    for name, shown in zip(
        ("", *COMMANDS),
        screens(width, [["--help"], *([name, "--help"] for name in COMMANDS)]),
        strict=True,
    ):
        fits(shown, width)
        assert not re.search(r"<[a-z][^>\n]*$", shown, re.M), f"{name}: a kind of value is folded"
        if name:
            command = GROUP.get_command(None, name)
            for one in command.params:
                for flag in one.opts if one.param_type_name == "option" else ():
                    assert re.search(rf"(?<!\S){flag}(?!\S)", shown), f"{name} {flag}"


def test_reports_of_commands(models: Path) -> None:
    """What a pipe gets is on the screen, word for word; there, lines are as long as they are."""
    with working_in(models):
        shown = screens(80, STEPS)
        for step, text in zip(STEPS, shown, strict=True):
            assert text, step
            fits(text, 80)
            assert bool(re.search(r"^  root\b", text, re.M)) <= bool(DIGEST.search(text)), step
        for step, text in zip(STEPS, shown, strict=True):
            if step[0] in ("inspect", "verify", "status"):
                code, piped, _ = run(*step)
                assert code == 0
                assert words(piped) <= words(text), step
                assert len(piped.splitlines()) <= len(text.splitlines())


def test_reports_of_measurements() -> None:
    pytest.importorskip("torch")
    import shown_reports

    for name, text in zip(shown_reports.ALL, screens(80, shown_reports.ALL), strict=True):
        fits(text, 80)
        with redirect_stdout(StringIO()) as piped:
            getattr(shown_reports, name)()
        folded = words(piped.getvalue()) - words(text) - {"recipe", "point"}
        assert not folded, name  # a heading may be left out


def test_errors_and_warnings_break_between_words(models: Path) -> None:
    with working_in(models):
        shown, other = screens(80, [("fix", "chat", "-o", "x"), ("inspect", "x" * 100)], True)
        fits(shown, 80)
        assert words(run("fix", "chat", "-o", "x")[2]) == words(shown)
        assert "x" * 100 in other  # what no line holds is not cut


def test_facts() -> None:
    facts = {"a": "one two three", "much longer": "four", "b": "x" * 30}
    assert fact_lines(facts, None) == [
        "  a            one two three",
        "  much longer  four",
        f"  b            {'x' * 30}",
    ]
    assert fact_lines(facts, 24) == [
        "  a            one two",
        "               three",
        "  much longer  four",
        "  b",
        f"    {'x' * 30}",
    ]


COLUMNS = ("name", "a long heading", "over-refusal")
ROWS = (("first", "1", "text"), ("second", "12", ""))


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            None,
            [
                "name    a long heading  over-refusal",
                "first                1  text",
                "second              12",
            ],
        ),
        (
            30,
            [
                "         a long",
                "name    heading  over-refusal",
                "first         1  text",
                "second       12",
            ],
        ),
        (
            24,
            [
                "name",
                "   a long",
                "  heading  over-refusal",
                "first",
                "        1  text",
                "second",
                "       12",
            ],
        ),
        (
            20,
            [
                "         a long",
                "name    heading",
                "first         1",
                "second       12",
                "",
                "name    over-refusal",
                "first   text",
                "second",
            ],
        ),
        (
            19,
            [
                "first",
                "  a long heading 1",
                "  over-refusal text",
                "second",
                "  a long heading 12",
            ],
        ),
    ],
)
def test_tables(width: int | None, lines: list[str]) -> None:
    assert table_lines(COLUMNS, ROWS, width) == lines


def test_a_command_goes_on_as_a_shell_takes_it() -> None:
    quoted = ["patchc", "verify", "'a b'", "model"]
    assert command_lines("next:", quoted, None) == ["next: patchc verify 'a b' model"]
    assert command_lines("next:", quoted, 24) == ["next: patchc verify \\", "    'a b' model"]
