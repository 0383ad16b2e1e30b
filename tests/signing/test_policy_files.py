"""Policy files that cannot be used: each is refused for its own reason, and nothing is written."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from policy_world import PolicyWorld
from tiny_checkpoints import tree

import patchc

KEYS = 'trusted = ["../ann-keys"]\n'


def refused(world: PolicyWorld, policy: Path, told: str) -> None:
    """A patch that the policy would take is not applied, and nothing is written anywhere."""
    patch, out = world.model.signed("ann", "ben"), world.folder / "out"
    before = tree(world.model.folder), tree(world.folder)
    for options in ({"out": out}, {"out": out, "dry_run": True}, {"in_place": True}):
        with pytest.raises(patchc.SignatureError, match=told) as refusal:
            patchc.apply(patch, world.model.base, trust=patchc.Trust(policies=policy), **options)
        assert str(policy) in str(refusal.value)
        assert refusal.value.exit_code == 23
    assert (tree(world.model.folder), tree(world.folder)) == before
    assert not out.exists()


def taken(world: PolicyWorld, policy: Path) -> None:
    """A patch that the policy asks for is applied."""
    patch, out = world.model.signed("ann"), world.folder / "out"
    report = patchc.apply(patch, world.model.base, out=out, trust=patchc.Trust(policies=policy))
    assert [one.source for one in report.policies] == [f"policy {policy}"]
    assert tree(out) == tree(world.model.tuned)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"trusted is missing; write a list of public keys"),
        ("require = 1\n", r"trusted is missing"),
        ('trusted = "../ann-keys"\n', r"trusted is '\.\./ann-keys'; write a list"),
        ("trusted = []\n", r"trusted is \[\]; write a list"),
        ("trusted = [1]\n", r"trusted is \[1\]; write a list"),
        ('trusted = [""]\n', r"trusted is \[''\]; write a list"),
        ('trusted = ["a\\u0000b"]\n', r"trusted is .*; write a list"),
        (KEYS + "require = 0\n", r"require is 0; write how many trusted keys must have signed"),
        (KEYS + "require = -1\n", r"require is -1; write how many"),
        (KEYS + "require = 1.0\n", r"require is 1\.0; write how many"),
        (KEYS + 'require = "1"\n', r"require is '1'; write how many"),
        (KEYS + "require = true\n", r"require is True; write how many"),
        (KEYS + "require = 2\n", r"2 trusted keys must have signed, and there is only 1 \(copies"),
        (KEYS + 'allow_code = "no"\n', r"allow_code is 'no'; write true or false"),
        (KEYS + "requires = 1\n", r"there is no 'requires'; did you mean require\?"),
        (KEYS + "strict = true\n", r"there is no 'strict'; a policy has trusted, require, allow"),
        ("[policy]\n" + KEYS, r"there is no 'policy'"),
        (KEYS + KEYS, r"not valid TOML \(Cannot overwrite a value"),
        ("trusted = [", r"not valid TOML \(.*\); no patch is taken while"),
        ("x = " + "[" * 60000, r"not valid TOML \("),
        (KEYS + "# " + "x" * 65536, r"it has more than 65,536 bytes"),
        ('trusted = ["../gone"]\n', r"cannot read the trusted keys .*/gone: no such file"),
        ('trusted = ["../empty"]\n', r"the folder of trusted keys .*/empty holds no file \*\.pub"),
        ('trusted = ["../ann"]\n', r"trusted key .*/ann is a private key"),
    ],
)
def test_a_policy_that_says_what_none_can(world: PolicyWorld, text: str, told: str) -> None:
    (world.folder / "empty").mkdir()
    shutil.copy(world.model.private("ann"), world.folder)
    path = world.write(world.place("file"), text)
    refused(world, path, f"^policy {re.escape(str(path))}: {told}")


def test_text_that_is_not_utf8(world: PolicyWorld) -> None:
    path = world.write(world.place("file"), "")
    path.write_bytes("# für uns\n".encode("latin-1") + KEYS.encode())
    refused(world, path, "not UTF-8 text; save the file as UTF-8")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda _: None, "cannot read it: no such file or folder"),
        (Path.mkdir, "cannot read it: it is a folder"),
        (os.mkfifo, "cannot read it: it is a pipe"),
        (_socket, "cannot read it: it is a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot read it: it is a device"),
        (lambda path: path.symlink_to(path), "cannot read it: the symbolic links .* a circle"),
    ],
    ids=["missing", "folder", "pipe", "socket", "device", "circle"],
)
def test_something_else_than_a_file(
    world: PolicyWorld, make: Callable[[Path], None], told: str
) -> None:
    path = world.folder / "policy"  # the name of a socket must be short
    make(path)
    refused(world, path, f"{told}.*; no patch is taken while a policy cannot be read")


@pytest.mark.parametrize("mode", [0o646, 0o666, 0o777])
@pytest.mark.parametrize("what", ["own/policy.toml", "own", "ann-keys/ann.pub", "ann-keys"])
def test_what_others_can_write_decides_nothing(world: PolicyWorld, what: str, mode: int) -> None:
    path = world.write(world.place("file"), KEYS)
    writable = world.folder / what
    writable.chmod(mode | 0o111 if writable.is_dir() else mode)
    refused(
        world, path, rf"others on this system can write .*{what}, .*; run `chmod go-w .*{what}`"
    )
    writable.chmod(writable.stat().st_mode & ~0o022)
    taken(world, path)


def test_what_a_link_leads_to_counts_as_well(world: PolicyWorld) -> None:
    target = world.write(world.folder / "elsewhere/policy.toml", world.text("ann"))
    path = world.place("file")
    path.parent.mkdir(mode=0o755)
    path.symlink_to(target)
    taken(world, path)
    shutil.rmtree(world.folder / "out")
    target.parent.chmod(0o777)
    refused(world, path, "others on this system can write .*/elsewhere, and so decide")


def test_folders_further_above_count_as_well(world: PolicyWorld) -> None:
    """Whoever can rename a folder can put another with the same names in its place."""
    above = world.folder / "shared"
    path = world.write(above / "team/own/policy.toml", world.text("ann"))
    for folder in (above, above / "team"):
        folder.chmod(0o775)
        refused(world, path, f"others on this system can write {folder}, and so decide")
        folder.chmod(0o755)
    above.chmod(0o1777)
    taken(world, path)


def test_folders_that_links_lead_through_count_as_well(world: PolicyWorld) -> None:
    world.write(world.folder / "real/policy.toml", world.text("ann"))
    (world.folder / "through/deep").mkdir(parents=True)
    (world.folder / "through/second").symlink_to("deep/../../real")
    (world.folder / "first").symlink_to(world.folder / "through/second", True)
    path = world.folder / "first/policy.toml"
    taken(world, path)
    shutil.rmtree(world.folder / "out")
    for folder in ("through", "through/deep", "real"):
        (world.folder / folder).chmod(0o777)
        refused(world, path, f"others on this system can write .*/{folder}, and so decide")
        (world.folder / folder).chmod(0o755)


def test_a_group_counts_as_others(world: PolicyWorld) -> None:
    path = world.write(world.place("file"), KEYS)
    path.chmod(0o664)
    refused(world, path, "others on this system can write")


def test_a_folder_where_only_owners_rename_holds_policies(world: PolicyWorld) -> None:
    path = world.write(world.place("file"), KEYS)
    path.parent.chmod(0o1777)
    taken(world, path)
