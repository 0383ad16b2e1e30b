"""Folders of code that is run as it is found there, so nobody else may be able to put it there.

Whoever can write into such a folder, or can put another in its place, runs code as whoever uses it.
So it, and every folder above it, belongs to the user or to root and lets nobody else write. Two
exceptions hold above it: a folder with the sticky bit, as ``/tmp`` has it, lets others add names
and take none away; and a group of the user's own name without other members is the user, unless it
is root's, in which containers put whoever they run, or an access control list lets more in.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_ACCESS_LIST = "system.posix_acl_access"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_folder(folder: Path) -> None:
    """Make a folder that others cannot write, and the missing ones above it.

    Root's can be read by all, so that what an image was built with serves its users.

    Raises:
        OSError: the system refused.
    """
    mode = 0o755 if os.geteuid() == 0 else 0o700
    for one in (*reversed(folder.parents), folder):
        if not one.is_dir():
            one.mkdir(mode, exist_ok=True)


def check_folder(folder: Path) -> Path:
    """Return where a folder really is, if nobody but the user and root can put files there.

    Raises:
        OSError: there is none, it cannot be looked at, or somebody else can.
    """
    real = Path(os.path.realpath(folder, strict=True))
    for one in (real, *real.parents):
        state = one.stat()
        if not _is_ours(state):
            raise _unsafe(one, "it belongs to somebody else")
        sticky = one != real and state.st_mode & stat.S_ISVTX
        if _others_write(one, state) and not sticky:
            raise _unsafe(one, "others can write into it")
    return real


def read_code(path: Path) -> bytes:
    """Read a file of a checked folder.

    Raises:
        OSError: there is none, it is a link, or somebody else owns it or can write it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if (
            not stat.S_ISREG(state.st_mode)
            or not _is_ours(state)
            or _others_write(descriptor, state)
        ):
            raise _unsafe(path, "others can write it")
        return file.read()


def write_code(path: Path, content: bytes) -> None:
    """Write a new file that others can at most read.

    Raises:
        OSError: the system refused.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
        os.fchmod(file.fileno(), 0o644)  # whatever the umask: root's serve other users
        file.write(content)


def _unsafe(path: Path, why: str) -> OSError:
    return PermissionError(errno.EPERM, why, str(path))


def _is_ours(state: os.stat_result) -> bool:
    return state.st_uid in (0, os.geteuid())


def _others_write(place: Path | int, state: os.stat_result) -> bool:
    if not state.st_mode & _OTHERS_WRITE:
        return False
    if state.st_mode & stat.S_IWOTH or not _is_own_group(state):
        return True
    return _has_list(place)  # whose mask the system shows in place of the group's bits


def _has_list(place: Path | int) -> bool:
    """Whether an access control list says who else may do what; none can where there are none."""
    try:
        os.getxattr(place, _ACCESS_LIST)
    except (OSError, AttributeError):
        return False
    return True


def _is_own_group(state: os.stat_result) -> bool:
    """Whether a group is that of one user: named as the owner, and no other user's.

    A user can be in a group as a member of it, or by being made with it.
    """
    import grp
    import pwd

    try:
        owner, group = pwd.getpwuid(state.st_uid).pw_name, grp.getgrgid(state.st_gid)
    except KeyError:
        return False
    if state.st_gid == 0 or group.gr_name != owner:
        return False
    made_with_it = {one.pw_name for one in pwd.getpwall() if one.pw_gid == state.st_gid}
    return {*group.gr_mem, *made_with_it} <= {owner}
