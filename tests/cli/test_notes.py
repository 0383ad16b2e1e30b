"""Notes of the library reach standard error once, and nobody else's output."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stderr

import pytest

from patchc.cli.printing_notes import printing_notes
from patchc.cli.voice import Voice, speaking
from patchc.notes import LOGGER, note


def _printed(manner: Voice) -> str:
    printed = io.StringIO()
    with redirect_stderr(printed), speaking(manner), printing_notes():
        note("shard.gguf is left aside")
        note("shard.gguf is left aside")
        note("a second\x1b[2J")
    return printed.getvalue()


def test_each_note_is_printed_once_and_escaped() -> None:
    assert _printed(Voice()) == (
        "patchc: note: shard.gguf is left aside\npatchc: note: a second\\x1b[2J\n"
    )


def test_a_quiet_command_prints_none() -> None:
    assert _printed(Voice(quiet=True)) == ""


def test_of_several_ranks_the_first_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert _printed(Voice()) == ""


def test_the_library_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    note("nobody listens")
    assert capfd.readouterr() == ("", "")


def test_a_program_that_logs_gets_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="patchc"):
        note("taken from the cache")
    assert caplog.messages == ["taken from the cache"]
    assert LOGGER.level == logging.NOTSET
