"""Which folders may hold compiled code, and what a command says where it cannot be kept."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from grp import struct_group
from pathlib import Path
from pwd import struct_passwd
from textwrap import dedent

import pytest

from patchc.code_folder import check_folder, make_folder, read_code, write_code

LOOP = dedent(
    """
    from patchc.jit import loop

    @loop
    def twice(value):
        return 2 * value

    twice(4)
    from patchc import loop_cache
    print(loop_cache.counts.compiled, loop_cache.counts.found, loop_cache.not_kept())
    """
)


def run_loop(named: Path, user: Path) -> str:
    variables = {"PATCHC_CACHE": str(named), "XDG_CACHE_HOME": str(user)}
    done = subprocess.run(
        [sys.executable, "-c", LOOP],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.nbc"))


def test_folders_are_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    before = os.umask(0)
    try:
        make_folder(folder)
        write_code(folder / "code", b"1")
    finally:
        os.umask(before)
    for path in (folder, folder.parent, folder / "code"):
        assert not path.stat().st_mode & 0o022
    assert check_folder(folder) == folder.resolve()
    assert read_code(folder / "code") == b"1"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(PermissionError, match="others can write into it"):
        check_folder(folder)


def test_a_folder_below_one_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "own"
    make_folder(folder)
    folder.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="others can write into it"):
        check_folder(folder)
    folder.parent.chmod(0o1777)  # as /tmp is: what is there cannot be replaced
    check_folder(folder)


def test_a_link_to_a_folder_counts_as_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "shared")
    with pytest.raises(PermissionError):
        check_folder(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    make_folder(folder)
    write_code(folder / "code", b"1")
    os.chown(folder / "code", 65534, 65534)
    with pytest.raises(PermissionError):
        read_code(folder / "code")
    os.chown(folder, 65534, 65534)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        check_folder(folder)


def test_files_that_are_links_or_open_to_others_are_not_read(tmp_path: Path) -> None:
    write_code(tmp_path / "code", b"1")
    (tmp_path / "link").symlink_to(tmp_path / "code")
    with pytest.raises(OSError, match="link"):
        read_code(tmp_path / "link")
    (tmp_path / "code").chmod(0o666)
    with pytest.raises(PermissionError):
        read_code(tmp_path / "code")


class Users:
    """The system's tables of users and groups, with ``alice`` and her own group."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        folder.chmod(0o775)
        state = folder.stat()
        self.alice = struct_passwd(("alice", "x", state.st_uid, 1234, "", "/", ""))
        self.users = [self.alice]
        self.members: list[str] = []
        self.gid = 1234
        monkeypatch.setattr("pwd.getpwuid", lambda _: self.alice)
        monkeypatch.setattr("pwd.getpwall", lambda: self.users)
        monkeypatch.setattr(
            "grp.getgrgid", lambda gid: struct_group(("alice", "x", gid, self.members))
        )
        if state.st_gid == 0 and os.geteuid() == 0:
            os.chown(folder, -1, self.gid)


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Users:
    (tmp_path / "own").mkdir()
    return Users(monkeypatch, tmp_path / "own")


def test_the_group_of_one_user_is_that_user(tmp_path: Path, users: Users) -> None:
    assert check_folder(tmp_path / "own") == tmp_path / "own"
    users.members.append("alice")
    check_folder(tmp_path / "own")


def test_a_group_with_another_member_is_others(tmp_path: Path, users: Users) -> None:
    users.members.append("bob")
    with pytest.raises(PermissionError, match="others can write into it"):
        check_folder(tmp_path / "own")


def test_a_group_that_another_user_was_made_with_is_others(tmp_path: Path, users: Users) -> None:
    """Such a user is no member in the table of groups."""
    gid = (tmp_path / "own").stat().st_gid
    users.users.append(struct_passwd(("bob", "x", 4321, gid, "", "/", "")))
    with pytest.raises(PermissionError, match="others can write into it"):
        check_folder(tmp_path / "own")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to root's group")
@pytest.mark.usefixtures("users")
def test_the_group_of_root_is_others(tmp_path: Path) -> None:
    """Containers run users of any number with it."""
    os.chown(tmp_path / "own", -1, 0)
    with pytest.raises(PermissionError, match="others can write into it"):
        check_folder(tmp_path / "own")


@pytest.mark.usefixtures("users")
def test_a_folder_with_an_access_control_list_is_others(tmp_path: Path) -> None:
    """Its group's bits are then the most that anybody named in the list may do."""
    entries = [(1, 7, 2**32 - 1), (2, 7, 4321), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1)]
    entries.append((32, 5, 2**32 - 1))
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(tmp_path / "own", "system.posix_acl_access", packed)
    except OSError:
        pytest.skip("the file system has no such lists")
    assert (tmp_path / "own").stat().st_mode & 0o020
    with pytest.raises(PermissionError, match="others can write into it"):
        check_folder(tmp_path / "own")


@pytest.mark.usefixtures("users")
def test_a_file_that_a_list_opens_to_others_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own/code"
    write_code(path, b"1")
    path.chmod(0o664)
    os.chown(path, -1, (tmp_path / "own").stat().st_gid)
    assert read_code(path) == b"1"
    monkeypatch.setattr(os, "getxattr", lambda *_: b"a list")
    with pytest.raises(PermissionError, match="others can write it"):
        read_code(path)


def test_a_link_in_a_circle_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        check_folder(tmp_path / "loop")


def test_code_lies_in_the_folder_that_is_named(tmp_path: Path) -> None:
    named, user = tmp_path / "named", tmp_path / "user"
    assert run_loop(named, user) == "1 0"
    assert len(kept(named)) == 1
    assert not user.exists()
    assert run_loop(named, user) == "0 1"


def test_a_named_folder_that_is_not_safe_is_told_and_not_used(tmp_path: Path) -> None:
    named, user = tmp_path / "named", tmp_path / "user"
    run_loop(named, user)
    named.chmod(0o777)
    told = run_loop(named, user)
    assert told.startswith(f"1 0 compiled code in {named} is not used, since others can write")
    assert "PATCHC_CACHE" in told
    assert "patchc warm-up" in told
    assert len(kept(user)) == 1
    assert run_loop(named, user) == "0 1", "nothing was compiled, so nothing is said"


def test_where_nothing_can_be_written_each_process_compiles(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = run_loop(tmp_path / "file" / "named", tmp_path / "file" / "user")
    assert told.startswith("1 0 no folder for compiled code can be written; name a folder")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_root_has_kept_serves_another_user(tmp_path: Path) -> None:
    named = tmp_path / "kept"
    make_folder(named)
    write_code(named / "code", b"1")
    for folder in named.parents:
        if folder.stat().st_uid == 0 and tmp_path.is_relative_to(folder) and len(folder.parts) > 2:
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        check_folder(named)
        assert read_code(named / "code") == b"1"
        with pytest.raises(OSError, match="denied"):
            write_code(named / "other", b"1")
    finally:
        os.seteuid(0)
