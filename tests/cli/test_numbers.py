"""Options that take numbers: of any digits, they work or are refused with a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import run
from tiny_checkpoints import PatchedModel

from patchc.cli.main import app
from patchc.cli.options import parse_size
from patchc.errors import UsageError
from patchc.runtime.runtime import MOST_THREADS, Runtime

GROUP: Any = typer.main.get_command(app)
PLAIN = ("\uff11\uff12", "1_000")
"""Numbers to some: full-width digits, and digits with a line between them."""
NUMBERS = (
    *PLAIN, "0", "1e5", "1e400", "inf", "-inf", "0x10", "", "2147483648", "18446744073709551616",
    "-1", "nan", "1" + 30 * "0", 5000 * "9",
)  # fmt: skip
_ASKED = ("x", "--harmful", "x", "--harmless", "x")
WITH = {
    "fix": (*_ASKED, "-o", "out"),
    "derive": ("x", "--data", "x", "-o", "out"),
    "build": ("x", "--tuned", "x", "-o", "out"),
    "diff": ("x", "y", "-o", "out"),
    "apply": ("x", "y", "-o", "out"),
    "revert": ("x", "y", "-o", "out"),
    "verify": ("x", "y"),
    "inspect": ("x",),
    "report": ("x", "-o", "out"),
    "status": ("x", "y"),
    "annotate": ("x", "--name", "x", "-o", "out"),
    "fold": ("x", "y", "-o", "out"),
    "keygen": ("x.pub",),
    "sign": ("x", "--key", "x"),
    "sign-model": ("x", "--key", "x"),
    "verify-model": ("x", "--signature", "x", "--trusted", "x"),
    "evaluate": _ASKED,
    "landscape": (*_ASKED, "-o", "out"),
    "sweep": (*_ASKED, "-o", "out"),
    "fit": (*_ASKED, "-o", "out"),
    "demo": ("--unknown",),
    "warm-up": ("x",),
}
"""Arguments with which each command fails, and only because nothing of these names exists."""


@pytest.mark.parametrize("command", sorted(WITH))
def test_every_option_of_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """No input exists, so that each command ends early, and none may end with a traceback."""
    monkeypatch.chdir(tmp_path)
    parameters = GROUP.get_command(None, command).params
    for one in parameters:
        if one.param_type_name == "option" and not getattr(one, "is_flag", False):
            for number in NUMBERS[-4:]:
                option = f"{max(one.opts, key=len)}={number}"
                code, _, err = run(command, *WITH[command], option)
                assert code, option[:60]
                assert err
    assert not list(tmp_path.iterdir())


def test_no_command_is_left_out() -> None:
    assert sorted(WITH) == sorted(GROUP.list_commands(None))


def test_seeds_of_the_demo() -> None:
    for number in ("-1", "18446744073709551616", "1" + 30 * "0"):
        code, _, err = run("demo", f"--seed={number}")
        assert code == 2
        assert "seed" in err


def test_threads(patched: PatchedModel) -> None:
    for number in NUMBERS:
        code, _, err = run("verify", patched.patch, patched.base, f"--threads={number}")
        assert code in ((0, 2) if number in PLAIN else (2,)), number[:30]
        assert "Traceback" not in err


def test_memory(patched: PatchedModel) -> None:
    more = (f"{5000 * '9'}GB", "9.9e9", f"1.{5000 * '0'}GB")
    for number in (*NUMBERS, *more):
        code, _, err = run("verify", patched.patch, patched.base, f"--max-memory={number}")
        assert code == (0 if number in ("2147483648", more[2]) else 2), number[:30]
        assert "Traceback" not in err


def test_threads_of_a_library_call() -> None:
    for threads in (0, -1, MOST_THREADS + 1, 10**30, 10**5000):
        with pytest.raises(UsageError, match="from 1 to 1024"):
            Runtime(threads)


def test_the_largest_size_is_one_that_memory_can_have() -> None:
    assert parse_size("8000000000 GB") == 8 * 10**18
    with pytest.raises(typer.BadParameter, match="more memory than any machine has"):
        parse_size("9300000000 GB")


def test_a_recipe_with_a_number_of_many_digits(patched: PatchedModel, tmp_path: Path) -> None:
    """Python writes no decimal number of more than 4300 digits, and reads such hexadecimal ones."""
    recipe = tmp_path / "recipe.toml"
    for key in ("seed", "alpha", "retain", "scope", "least_step", "include", "rescale"):
        recipe.write_text(f"{key} = 0x{5000 * 'f'}\n")
        code, _, err = run(
            "build", patched.base, "--se", "x", "--osm", "x", "--recipe", recipe, "-o", "out"
        )
        assert code == 2
        assert key in err
