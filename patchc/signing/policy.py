"""Policies: which patches may be taken, as files say it.

Every policy that is found has to hold by itself, so that the strictest wins. One that cannot be
read for certain is refused, and never taken for none.
"""

from __future__ import annotations

import os
import shlex
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from patchc.errors import SignatureError
from patchc.regular_file import open_regular
from patchc.signing.keys import key_files
from patchc.system_errors import reason

VARIABLE = "PATCHC_POLICY"
"""The environment's variable that names a policy file."""

MACHINE_POLICY = Path("/etc/patchc/policy.toml")

THIS_CALL = "this call"
"""The source of what a call itself asks for."""

_MOST_BYTES = 1 << 16
_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_KEYS = ("trusted", "require", "allow_code")
_CLOSED = "no patch is taken while a policy cannot be read"


@dataclass(frozen=True)
class SigningPolicy:
    """What a patch needs in order to be taken.

    Attributes:
        source: what asks for it: a file, or "this call".
        trusted: public keys, and folders of them.
        require: how many of the trusted keys must have signed the patch.
        allow_code: whether a call may ask for patches with files that a loader or an interpreter
            would run.
    """

    source: str
    trusted: tuple[Path, ...]
    require: int = 1
    allow_code: bool = False


def standing_policies() -> tuple[SigningPolicy, ...]:
    """The policies of the environment, of the user, and of the machine.

    Raises:
        SignatureError: one of them is there and cannot be used, or the environment names none.
    """
    places = [path for path in (_user_policy(), MACHINE_POLICY) if path and not _is_absent(path)]
    named = os.environ.get(VARIABLE)
    if named == "":  # as where a script names a variable of its own that is not set
        raise SignatureError(
            f"{VARIABLE} is set and empty, so that it is not known which policy it should name; "
            "name the file, or unset the variable"
        )
    if named is not None:
        places.insert(0, Path(named))
    return tuple(map(read_policy, places))


def read_policy(path: Path) -> SigningPolicy:
    """Read a policy file.

    Raises:
        SignatureError: it is missing, unreadable, no TOML, or says what no policy can; or others
            can write it, or a key that it trusts. Names file and key.
    """
    content, state = _parse(f"policy {path}", path)
    _refuse_writable(f"policy {path}", path, state)
    return _policy(f"policy {path}", path, content)


def read_config_policy(path: Path) -> SigningPolicy | None:
    """Read the table ``[policy]`` of a file of options; None where it has none.

    Raises:
        SignatureError: as :func:`read_policy`.
    """
    content, state = _parse(f"config {path}", path)
    if "policy" not in content:
        return None
    _refuse_writable(f"config {path}", path, state)
    source = f"config {path}: [policy]"
    if not isinstance(content["policy"], dict):
        raise SignatureError(f"{source} is {content['policy']!r:.80}; write a table")
    return _policy(source, path, content["policy"])


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Say of an error about a key which policy trusts it."""
    try:
        yield
    except SignatureError as error:
        if source == THIS_CALL:
            raise
        raise type(error)(f"{source}: {error}") from error


def _user_policy() -> Path | None:
    """Where the user's policy is, if there is one (XDG Base Directory Specification)."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        folder = base if base.is_absolute() else Path.home() / ".config"
    except RuntimeError:  # a user without a home
        return None
    return folder / "patchc" / "policy.toml"


def _is_absent(path: Path) -> bool:
    """Whether nothing is there; a link that leads nowhere, also on the way, is something.

    Raises:
        SignatureError: the system does not tell, or others could have taken it away.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        if any(one.is_symlink() and not one.exists() for one in path.parents):
            return False
        if path.parent.is_dir():  # made for a policy, which others may have removed
            _refuse_exchange(f"policy {path}", path)
        return True
    except OSError as error:
        raise SignatureError(
            f"policy {path}: cannot tell whether it is there: {reason(error)}; {_CLOSED}"
        ) from error
    return False


def _parse(source: str, path: Path) -> tuple[dict[str, Any], os.stat_result]:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            state = os.fstat(file.fileno())
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SignatureError(f"{source}: cannot read it: {reason(error)}; {_CLOSED}") from error
    if len(content) > _MOST_BYTES:
        raise SignatureError(f"{source}: it has more than {_MOST_BYTES:,} bytes; write less")
    try:
        return tomllib.loads(content.decode("utf-8-sig")), state
    except UnicodeDecodeError as error:
        raise SignatureError(f"{source}: not UTF-8 text; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise SignatureError(f"{source}: not valid TOML ({error!s:.200}); {_CLOSED}") from error


def _policy(source: str, path: Path, given: dict[str, Any]) -> SigningPolicy:
    for key in given.keys() - _KEYS:
        near = get_close_matches(key, _KEYS, 1)
        advice = f"did you mean {near[0]}?" if near else f"a policy has {', '.join(_KEYS)}"
        raise SignatureError(f"{source}: there is no {key!r:.80}; {advice}")
    trusted = given.get("trusted")
    if not (trusted and isinstance(trusted, list) and all(map(_is_text, trusted))):
        told = f"is {trusted!r:.80}" if "trusted" in given else "is missing"
        raise SignatureError(
            f'{source}: trusted {told}; write a list of public keys and folders, as ["keys"]'
        )
    require = given.get("require", 1)
    if not isinstance(require, int) or isinstance(require, bool) or require < 1:
        raise SignatureError(
            f"{source}: require is {require!r:.80}; write how many trusted keys must have signed, "
            "at least 1"
        )
    allow_code = given.get("allow_code", False)
    if not isinstance(allow_code, bool):
        raise SignatureError(f"{source}: allow_code is {allow_code!r:.80}; write true or false")
    places = tuple(path.parent / one for one in trusted)
    with naming(source):
        for file in (file for place in places for file in key_files(place)):
            _refuse_writable(f"trusted key {file}", file, _state_of(file))
    return SigningPolicy(source, places, require, allow_code)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _refuse_writable(what: str, path: Path, state: os.stat_result) -> None:
    """Refuse a file that others than its owner can write, or exchange for another.

    Raises:
        SignatureError: they can.
    """
    _refuse_others(what, path, state)
    _refuse_exchange(what, path)


def _refuse_exchange(what: str, path: Path) -> None:
    """Refuse a path at which others can put another file, or take away what is there."""
    for folder in _folders_on_the_way(path):
        found = _state_of(folder)
        if not found.st_mode & stat.S_ISVTX:  # else only owners remove and rename what is in it
            _refuse_others(what, folder, found)


def _refuse_others(what: str, place: Path, state: os.stat_result) -> None:
    if state.st_mode & _BY_OTHERS:
        raise SignatureError(
            f"{what}: others on this system can write {place}, and so decide who is trusted; "
            f"run `chmod go-w {shlex.quote(str(place))}`, and check what it says"
        )


def _folders_on_the_way(path: Path) -> Iterator[Path]:
    """Every folder where something can be exchanged so that a path leads to another file.

    Those above it, and those that the links on the way lead through.
    """
    place, *rest = path.absolute().parts
    while rest:
        yield Path(place)
        step = Path(place, rest.pop(0))
        if step.is_symlink():
            place, *through = (step.parent / step.readlink()).parts
            rest[:0] = through
        else:
            place = str(step)


def _state_of(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise SignatureError(f"cannot read {path}: {reason(error)}; {_CLOSED}") from error
