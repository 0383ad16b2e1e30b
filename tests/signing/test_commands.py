"""keygen, sign and verify as commands: what they print, ask and import, and their exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from golden_patch import golden_bytes
from signed_patches import FIRST, SECOND, signed

import patchc
from patchc.errors import MissingExtraError

DATA = golden_bytes()
PATCH = Path("x.patchc")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PATCH.write_bytes(DATA)
    FIRST.write_private(Path("first"))
    FIRST.write_public(Path("first.pub"))
    SECOND.write_public(Path("second.pub"))


def told(*arguments: object, code: int = 0) -> str:
    found, out, err = run(*arguments)
    assert found == code, err
    return out if code == 0 else err


def test_from_a_key_to_a_verified_patch() -> None:
    out = told("keygen", "release")
    assert "not encrypted" in out
    assert out.splitlines()[-1] == "next: patchc sign fix.patchc --key release"
    out = told("sign", PATCH, "--key", "release", "--expires", "90d")
    assert out.splitlines()[-1] == "next: patchc verify x.patchc --trusted release.pub"
    out = told("verify", PATCH, "--trusted", "release.pub")
    assert "as required: 1 of 1" in out
    key_id = patchc.inspect(PATCH).signatures[0]
    assert key_id in out
    assert f"names key {key_id} (not checked)" in told("inspect", PATCH)


def test_the_next_command_asks_for_the_same_signatures(patched: Any) -> None:
    """Copied into a shell, it must not take what the one before it would have refused."""
    told("sign", patched.patch, "--key", "first", "--detached", "it's.sig")
    asked = ("--trusted", "first.pub", "--require", "1", "--signature", "it's.sig")
    shown = " --trusted first.pub --require 1 --signature 'it'\"'\"'s.sig'"

    def following(*arguments: object) -> str:
        return told(*arguments, *asked).splitlines()[-1]

    new = f"{patched.base}-patched"
    line = f"next: patchc apply {patched.patch} {patched.base} -o {new}{shown}"
    assert following("verify", patched.patch, patched.base) == line
    line = f"next: patchc verify {patched.patch} {new}{shown}"
    assert following("apply", patched.patch, patched.base, "-o", new) == line
    line = f"to take it back: patchc revert {patched.patch} {new} -o {new}-reverted{shown}"
    assert following("verify", patched.patch, new) == line


def test_sign_says_what_it_signed_and_where() -> None:
    first = told("sign", PATCH, "--key", "first", "--detached", "x.sig").splitlines()[0]
    assert first == "sign: signed x.patchc, in x.sig"
    assert told("sign", PATCH, "--key", "first").splitlines()[0] == "sign: signed x.patchc"
    again = told("sign", PATCH, "--key", "first", "-o", "copy.patchc").splitlines()[0]
    assert again == "sign: first has signed x.patchc; copy.patchc is a copy"
    assert Path("copy.patchc").read_bytes() == PATCH.read_bytes()
    Path("first.pub").unlink()
    assert "next: " not in told("sign", PATCH, "--key", "first")


def test_a_file_that_is_no_detached_signature() -> None:
    for name in (PATCH, "first.pub"):
        message = told("verify", PATCH, "--trusted", "first.pub", "--signature", name, code=23)
        assert message.startswith(f"patchc: error: {name}: not a detached signature")
        assert "name the file that `patchc sign --detached` wrote, or fetch it again" in message


def test_json_of_each() -> None:
    made = json.loads(told("keygen", "release", "--json"))
    assert made.keys() == {"private", "public", "key_id", "encrypted"}
    report = json.loads(told("sign", PATCH, "--key", "release", "--json"))
    assert (report["out"], report["key_ids"]) == ("x.patchc", [made["key_id"]])
    shown = json.loads(told("inspect", PATCH, "--json"))
    assert shown["signatures"] == [made["key_id"]]
    assert (shown["issued"], shown["expires"]) == (report["issued"], None)


def test_the_four_answers_are_apart(patched: Any) -> None:
    """A model that is not the base does not hide who signed, nor the other way round."""
    patch = shutil.copy(patched.patch, "y.patchc")
    told("sign", patch, "--key", "first")
    names = ("integrity", "signature", "base", "result")

    def answers(model: Path, key: str, code: int) -> tuple[str, ...]:
        found, out, _ = run("verify", patch, model, "--trusted", key, "--json")
        assert found == code
        return tuple(json.loads(out)[name] for name in names)

    base, tuned = patched.base, patched.tuned
    assert answers(base, "first.pub", 0) == ("intact", "as required", "yes", "no")
    assert answers(tuned, "first.pub", 0) == ("intact", "as required", "no", "yes")
    assert answers(base, "second.pub", 23) == ("intact", "not as required", "yes", "no")
    shutil.copy(tuned / "model-00001-of-00002.safetensors", base)
    assert answers(base, "first.pub", 10) == ("intact", "as required", "partly", "partly")
    text = told("verify", patch, tuned, "--trusted", "first.pub")
    for line in ("patch        intact", "signature    as required", "base         no",
                 "result       yes"):  # fmt: skip
        assert line in text
    assert "to take it back: " in text
    assert "to take it back: " not in run("verify", patch, tuned, "--trusted", "second.pub")[1]


def test_what_is_not_asked_is_not_answered() -> None:
    out = json.loads(told("verify", PATCH, "--json"))
    assert (out["signature"], out["base"], out["result"]) == ("none", "not asked", "not asked")
    told("sign", PATCH, "--key", "first")
    assert "not checked: no key is trusted (--trusted)" in told("verify", PATCH)


def test_exit_codes_of_a_patch_that_is_not_signed_as_required() -> None:
    assert "the patch is not signed" in told("verify", PATCH, "--trusted", "first.pub", code=23)
    PATCH.write_bytes(signed(DATA, FIRST))
    assert "not trusted" in told("verify", PATCH, "--trusted", "second.pub", code=23)
    both = ("--trusted", "first.pub", "--trusted", "second.pub")
    assert "1 of 2" in told("verify", PATCH, *both, "--require", "2", code=23)
    PATCH.write_bytes(signed(DATA, FIRST, expires="2026-11-29T12:00:00Z"))
    assert "expired at" in told("verify", PATCH, "--trusted", "first.pub", code=23)
    assert "trust" in told("verify", PATCH, "--require", "1", code=2)


def test_an_empty_text_does_not_trust_the_keys_at_hand() -> None:
    """As where a script names a variable that is not set, in a folder that a stranger filled."""
    FIRST.write_public(Path("strangers.pub"))
    PATCH.write_bytes(signed(DATA, FIRST))
    assert "a path is empty; name" in told("verify", PATCH, "--trusted", "", code=2)
    assert told("verify", PATCH, "--trusted", ".")
    for keys in ("", ["first.pub", ""]):
        with pytest.raises(patchc.UsageError, match="a path is empty"):
            patchc.verify(PATCH, trust=patchc.Trust(keys=keys))


def test_a_password_from_a_file_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret").write_text("swordfish\nnot this\n")
    told("keygen", "key", "--encrypt", "--password-file", "secret")
    told("sign", PATCH, "--key", "key", "--password-file", "secret", "-o", "a.patchc")
    monkeypatch.setenv("PATCHC_KEY_PASSWORD", "swordfish")
    told("sign", PATCH, "--key", "key", "-o", "b.patchc")
    monkeypatch.setenv("PATCHC_KEY_PASSWORD", "")
    assert "PATCHC_KEY_PASSWORD is empty" in told("sign", PATCH, "--key", "key", code=2)
    monkeypatch.setenv("PATCHC_KEY_PASSWORD", "other")
    assert "does not open" in told("sign", PATCH, "--key", "key", code=23)
    monkeypatch.delenv("PATCHC_KEY_PASSWORD")
    assert "give --password-file, or set" in told("sign", PATCH, "--key", "key", code=23)
    assert PATCH.read_bytes() == DATA


def test_password_files_that_are_none() -> None:
    os.mkfifo("pipe")
    Path("empty").write_text("\nsecond line\n")
    for name, reason in (
        ("none", "no such file"),
        ("pipe", "it is a pipe"),
        ("empty", "has no first line"),
    ):
        assert reason in told("keygen", "k", "--encrypt", "--password-file", name, code=2)
    assert "add --encrypt" in told("keygen", "k", "--password-file", "empty", code=2)
    assert "there is no terminal to ask" in told("keygen", "k", "--encrypt", code=2)
    assert not Path("k").exists()


def _on_a_terminal(typed: list[str], *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal, and type a line for each question."""
    pid, screen = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "patchc", *arguments])
    shown = b""
    while True:
        try:
            if select.select([screen], [], [], 60)[0] == []:
                break
            part = os.read(screen, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
        if part.rstrip().endswith(b":") and typed:
            os.write(screen, typed.pop(0).encode() + b"\n")
    os.close(screen)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_a_terminal_asks_for_the_password() -> None:
    code, shown = _on_a_terminal(["swordfish", "swordfish"], "keygen", "key", "--encrypt")
    assert code == 0
    assert "password for the new key:" in shown
    assert "swordfish" not in shown
    code, shown = _on_a_terminal(["swordfish"], "sign", "x.patchc", "--key", "key")
    assert code == 0, shown
    assert "password of key:" in shown
    code, shown = _on_a_terminal(["one", "two"], "keygen", "other", "--encrypt")
    assert (code, Path("other").exists()) == (2, False)
    assert "the two passwords differ" in shown


@pytest.mark.parametrize("package", ["cryptography", "securesystemslib"])
def test_without_the_extra_nothing_is_verified(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    PATCH.write_bytes(signed(DATA, FIRST))
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for arguments in (
        ("verify", PATCH, "--trusted", "first.pub"),
        ("keygen", "new"),
        ("sign", PATCH, "--key", "first"),
    ):
        message = told(*arguments, code=MissingExtraError.exit_code)
        assert re.search(rf"needs {package}\S*; install it with `.*\[sign\]", message)
    assert not Path("new").exists()
    told("verify", PATCH)


def test_a_command_that_checks_no_signature_loads_no_cryptography() -> None:
    PATCH.write_bytes(signed(DATA, FIRST))
    code = """
import sys
from patchc.cli.main import app
for command in ("inspect", "verify"):
    app([command, "x.patchc"], standalone_mode=False)
print([n for n in ("cryptography", "securesystemslib") if n in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
