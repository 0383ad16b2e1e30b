"""Options that every command has: how much it says."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from command_line import run
from tiny_checkpoints import PatchedModel

import patchc
from patchc.cli.derive_facts import next_words
from patchc.cli.showing_progress import ProgressLines, showing_progress
from patchc.cli.voice import Voice
from patchc.derivation.derive_options import DeriveOptions
from patchc.progress import ProgressEvent


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Told:
    """Lines of progress, and the clock that they go by."""

    def __init__(self, verbose: bool = False) -> None:
        self.lines: list[str] = []
        self.clock = Clock()
        self.progress = ProgressLines(
            Voice("derive", verbose=verbose), self.lines.append, self.clock
        )

    def step(self, seconds: float, done: int, stage: str = "tune", total: int = 40) -> None:
        self.clock.now = 100 + seconds
        self.progress(ProgressEvent(stage, done, total, "steps", "loss 2.1"))


def test_short_work_is_silent() -> None:
    told = Told()
    for second in range(10):
        told.step(second, second, total=9)
    assert told.lines == []


def test_a_line_after_ten_seconds_and_then_every_thirty() -> None:
    told = Told()
    for second in range(0, 80, 2):
        told.step(second, second // 2)
    assert told.lines == [
        "patchc: derive: tune 12%, 5 of 40 steps, loss 2.1, 1:10 left",
        "patchc: derive: tune 50%, 20 of 40 steps, loss 2.1, 0:40 left",
        "patchc: derive: tune 88%, 35 of 40 steps, loss 2.1, 0:10 left",
    ]


def test_stages_one_after_the_other() -> None:
    told = Told()
    told.step(0, 0)
    told.step(11, 20)
    told.step(12, 0, "score")
    told.step(40, 10, "score")
    told.step(42, 11, "score")
    assert [line.split(":")[2].split()[0] for line in told.lines] == ["tune", "score"]
    assert told.lines[1].endswith("1:19 left")  # 30 s for 11, so 29 remain; from its own start


def test_a_stage_that_begins_anew() -> None:
    told = Told()
    told.step(0, 0)
    told.step(9, 39)
    told.step(9.5, 0)
    told.step(19.5, 20)
    assert told.lines[-1].endswith("0:10 left")


def test_verbose_lines_at_the_ends_of_stages_and_more_often() -> None:
    told = Told(verbose=True)
    for second in (0, 3, 6, 9, 12):
        told.step(second, 10 * second // 3)
    assert [line.removeprefix("patchc: derive: ") for line in told.lines] == [
        "tune begins",
        "tune 50%, 20 of 40 steps, loss 2.1, 0:06 left",
        "tune is done, 0:12",
    ]


def test_bytes_are_told_as_sizes() -> None:
    told = Told()
    told.clock.now += 10
    told.progress(ProgressEvent("apply", 1_500_000, 3_000_000_000, "bytes"))
    assert told.lines == ["patchc: derive: apply 0%, 1.50 MB of 3.00 GB"]


def test_compilation_is_told_once_and_only_where_it_is_long() -> None:
    told = Told()
    for second in (0, 4, 8, 12, 16):
        told.clock.now = 100 + second
        told.progress.compiling(True)
        told.progress.compiling(False)
    assert told.lines == ["patchc: derive: compiling for this processor, once"]
    verbose = Told(verbose=True)
    verbose.progress.compiling(True)
    assert len(verbose.lines) == 1


def test_what_a_terminal_would_act_on_is_not_told() -> None:
    told = Told()
    told.clock.now += 10
    told.progress(ProgressEvent("ask \x1b[2Jx", 1, 4, "requests"))
    assert "\x1b" not in told.lines[0]


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_terminal_that_cannot_redraw_a_bar_gets_lines(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", kind)
    with showing_progress() as progress:
        assert isinstance(progress, ProgressLines)


def test_a_quiet_command_prints_nothing_but_json(patched: PatchedModel) -> None:
    folder = patched.patch.parent
    for number, command in enumerate(
        [
            ("verify", patched.patch, patched.base),
            ("inspect", patched.patch),
            ("diff", patched.base, patched.tuned, "-o", folder / "again.patchc"),
            ("apply", patched.patch, patched.base, "-o", folder / "copy"),
            ("apply", patched.patch, patched.base, "--in-place", "--dry-run"),
            ("revert", patched.patch, patched.tuned, "-o", folder / "back"),
        ]
    ):
        assert run(*command, ("-q", "--quiet")[number % 2]) == (0, "", ""), command
    code, out, err = run("verify", patched.patch, patched.base, "-q", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["state"] == "base"


def test_a_quiet_command_still_tells_errors_and_warnings(patched: PatchedModel) -> None:
    code, out, err = run("apply", patched.patch, patched.tuned, "-o", "x", "-q")
    assert (code, out) == (8, "")
    assert err.startswith("patchc: error: ")
    (patched.base / "adapter.safetensors").write_bytes(
        (patched.base / "model-00001-of-00002.safetensors").read_bytes()
    )
    copy = patched.patch.parent / "copy"
    code, out, err = run("apply", patched.patch, patched.base, "-o", copy, "-q")
    assert (code, out) == (0, "")
    assert err.startswith("patchc: warning: not copied")


def test_a_verbose_command_tells_its_stages(patched: PatchedModel) -> None:
    code, out, err = run("verify", patched.patch, patched.base, "-v")
    assert code == 0
    assert "patchc: verify: verify begins\n" in err
    assert "patchc: verify: verify is done, 0:0" in err
    assert out == run("verify", patched.patch, patched.base)[1]


def test_verbose_and_quiet_exclude_each_other(patched: PatchedModel) -> None:
    code, out, err = run("verify", patched.patch, "-v", "-q")
    assert (code, out) == (2, "")
    assert "exclude each other" in err


@pytest.mark.parametrize("arguments", [(), ("-o", "it's $HOME")])
def test_the_command_that_comes_next(patched: PatchedModel, arguments: tuple[str, ...]) -> None:
    folder = patched.patch.parent
    out = folder / (arguments[1] if arguments else "copy")
    last = run("apply", patched.patch, patched.base, "-o", out)[1].splitlines()[-1]
    name, *command = shlex.split(last)
    assert name == "next:"
    assert command == ["patchc", "verify", str(patched.patch), str(out)]
    code, told, _ = run(*command[1:])
    assert code == 0
    assert "patched" in told
    what, back = told.splitlines()[-1].split(": ")
    reverted = out.with_name(f"{out.name}-reverted")
    assert what == "to take it back"
    command = shlex.split(back)
    assert command == ["patchc", "revert", str(patched.patch), str(out), "-o", str(reverted)]
    assert run(*command[1:])[0] == 0
    assert patchc.verify(patched.patch, reverted).state == "base"


def test_a_dry_run_names_the_command_that_writes(patched: PatchedModel) -> None:
    given = ("apply", patched.patch, patched.base, "--in-place", "--threads", 1)
    last = run(*given, "--dry-run")[1].splitlines()[-1]
    assert last == f"next: patchc {' '.join(map(str, given))}"
    last = run(*given)[1].splitlines()[-1]
    assert last == f"to take it back: patchc revert {patched.patch} {patched.base} --in-place"
    assert "next" not in run(*given, "--dry-run", "--json")[1]


def test_the_next_command_takes_a_path_for_no_option(
    patched: PatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(patched.patch.parent)
    last = run("diff", patched.base, patched.tuned, "-o", "-q.patchc")[1].splitlines()[-1]
    assert last == f"next: patchc verify ./-q.patchc {patched.base}"
    assert run(*shlex.split(last)[2:])[0] == 0


def test_a_name_that_cannot_be_copied_is_in_no_next_command(patched: PatchedModel) -> None:
    named = patched.patch.with_name("\x1b[2J.patchc")
    code, out, _ = run("diff", patched.base, patched.tuned, "-o", named)
    assert code == 0
    assert "wrote" in out
    assert "next" not in out


def test_the_next_command_writes_where_nothing_is(patched: PatchedModel) -> None:
    for ending in ("", "-2", "-3"):
        last = run("verify", patched.patch, patched.base)[1].splitlines()[-1]
        *command, out = shlex.split(last)[2:]
        assert out == f"{patched.base}-patched{ending}"
        assert run(*command, out)[0] == 0


def test_what_was_derived_is_built_with_the_very_share() -> None:
    options = DeriveOptions(retain=0.12345678)
    words = next_words(Path("model"), Path("work"), options, None)
    assert words[words.index("--retain") + 1] == "0.12345678"
