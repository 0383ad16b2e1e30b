"""Passwords of keys: from a file, from the environment, or typed at a terminal; never an option."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from patchc.cli.options import option
from patchc.errors import UsageError

VARIABLE = "PATCHC_KEY_PASSWORD"
_MOST = 4096

PasswordFile = Annotated[
    Path | None,
    option(
        "File whose first line is the password of the key. Without it, the environment variable "
        f"{VARIABLE} has the password, or a terminal asks for it.",
        metavar="FILE",
    ),
]


def given_password(file: Path | None) -> bytes | None:
    """The password that a file or the environment has; None where there is none.

    Raises:
        UsageError: the file cannot be read, or the password is empty.
    """
    if file is None:
        value = os.environb.get(VARIABLE.encode())
        if value == b"":
            raise UsageError(f"{VARIABLE} is empty; set it to the password, or unset it")
        return value
    from patchc.regular_file import read_regular
    from patchc.system_errors import reason

    try:
        password = read_regular(file, most=_MOST).split(b"\n")[0].removesuffix(b"\r")
    except OSError as error:
        raise UsageError(f"cannot read the password file {file}: {reason(error)}") from error
    if not password:
        raise UsageError(f"the password file {file} has no first line; write the password there")
    return password


def new_password(file: Path | None) -> bytes:
    """The password for a new key; a terminal asks for it twice.

    Raises:
        UsageError: there is none, or the two differ.
    """
    password = given_password(file)
    if password is not None:
        return password
    first = _typed("password for the new key: ")
    if not first:
        raise UsageError("the password is empty; give one, or leave --encrypt out")
    if _typed("the same again: ") != first:
        raise UsageError("the two passwords differ; run it again")
    return first


def password_of(key: Path, file: Path | None) -> bytes | None:
    """The password of a key; asked for only where it is encrypted, and a terminal is there."""
    from patchc.signing.keys import is_encrypted

    password = given_password(file)
    if password is None and sys.stdin.isatty() and is_encrypted(key):
        password = _typed(f"password of {key}: ")
    return password


def _typed(prompt: str) -> bytes:
    from getpass import getpass

    if not sys.stdin.isatty():
        raise UsageError(
            f"there is no terminal to ask for the password; give --password-file, or set {VARIABLE}"
        )
    return os.fsencode(getpass(prompt))
