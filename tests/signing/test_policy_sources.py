"""Where policies come from, and how they come together: each has to hold by itself."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ordinary_user import ordinary_user
from policy_world import SOURCES, PolicyWorld, make_policy_world
from tiny_checkpoints import tree

import patchc


def apply(world: PolicyWorld, trust: patchc.Trust, *signers: str, **options: Any) -> Any:
    out = world.folder / "out"
    return patchc.apply(
        world.model.signed(*signers), world.model.base, out=out, trust=trust, **options
    )


def refused(world: PolicyWorld, trust: patchc.Trust, told: str, *signers: str) -> None:
    before = tree(world.folder)
    with pytest.raises(patchc.SignatureError, match=told):
        apply(world, trust, *signers)
    assert tree(world.folder) == before
    assert not (world.folder / "out").exists()


def in_force(world: PolicyWorld, source: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the environment name its file, and return how a source is named."""
    if source == "environment":
        monkeypatch.setenv("PATCHC_POLICY", str(world.place(source)))
    return "" if source == "call" else f"policy {re.escape(str(world.place(source)))}: "


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_asks_for_a_signature(
    world: PolicyWorld, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    trust = world.ask(source, "ann")
    name = in_force(world, source, monkeypatch)
    patch = re.escape(str(world.model.folder))
    refused(world, trust, f"^{name}{patch}/unsigned.patchc: the patch is not signed, and")
    refused(
        world, trust, f"^{name}{patch}/eve.patchc: the signature is of key .* not trusted", "eve"
    )
    report = apply(world, trust, "ann")
    assert tree(world.folder / "out") == tree(world.model.tuned)
    (answer,) = report.policies
    assert answer.source == (name.replace("\\", "")[:-2] or "this call")
    assert answer.signed.valid == (world.model.ids["ann"],)
    assert answer.signed.required == 1


@pytest.mark.parametrize("strict", SOURCES)
@pytest.mark.parametrize("weak", SOURCES)
def test_the_strictest_wins_wherever_it_is(
    world: PolicyWorld, monkeypatch: pytest.MonkeyPatch, strict: str, weak: str
) -> None:
    if strict == weak:
        return
    asked = [world.ask(weak, "ann", "ben", "eve"), world.ask(strict, "ann", "ben", require=2)]
    trust = patchc.Trust(
        keys=next((one.keys for one in asked if one.keys), None),
        require=next((one.require for one in asked if one.require), None),
        policies=next((one.policies for one in asked if one.policies), ()),
    )
    for source in (strict, weak):
        in_force(world, source, monkeypatch)
    refused(world, trust, "too few signatures: 1 of 2 trusted keys", "ann")
    refused(world, trust, "too few signatures: 1 of 2 .*; 1 more: unknown key", "ann", "eve")
    report = apply(world, trust, "ann", "ben")
    assert sorted(one.signed.required for one in report.policies) == [1, 2]


def test_policies_that_trust_others_both_have_to_hold(world: PolicyWorld) -> None:
    world.ask("machine", "ann")
    trust = world.ask("call", "ben")
    refused(world, trust, "not trusted", "ann")
    refused(world, trust, "^policy .*/etc/policy.toml: .*not trusted", "ben")
    report = apply(world, trust, "ann", "ben")
    assert [one.signed.valid for one in report.policies] == [
        (world.model.ids["ben"],),
        (world.model.ids["ann"],),
    ]


def test_without_any_policy_nothing_is_asked(world: PolicyWorld) -> None:
    assert apply(world, patchc.Trust()).policies == ()


def test_what_was_read_can_be_asked_again(world: PolicyWorld) -> None:
    policy = patchc.SigningPolicy("ours", (world.folder / "ann-keys",), require=1)
    refused(world, patchc.Trust(policies=policy), "^ours: .*not signed")
    trust = patchc.Trust(policies=[policy, *world.ask("file", "ben").policies])  # type: ignore[misc]
    refused(world, trust, "^policy .*not trusted", "ann")
    assert len(apply(world, trust, "ann", "ben").policies) == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"require": 2}, "a number of signatures is required, and nobody is trusted"),
        ({"signatures": "x.sig"}, "a signature is given, and nobody is trusted whose it could be"),
        ({"keys": []}, "keys is empty, so that nobody is trusted"),
        ({"keys": "k", "require": 0}, "require is 0; give a whole number, at least 1"),
        ({"keys": "k", "require": True}, "require is True; give a whole number"),
        ({"keys": "k", "require": "2"}, "require is '2'; give a whole number"),
        ({"allow_code": "no"}, "allow_code is 'no'; give True or False"),
    ],
)
def test_a_call_that_asks_for_nothing_by_mistake(
    world: PolicyWorld, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(patchc.UsageError, match=told):
        apply(world, patchc.Trust(**given), "ann")
    with pytest.raises(patchc.UsageError, match="trust is True; give a patchc"):
        apply(world, True, "ann")  # type: ignore[arg-type]
    assert not (world.folder / "out").exists()


def test_keys_that_can_be_listed_once_are_for_every_patch(world: PolicyWorld) -> None:
    trust = patchc.Trust(keys=iter(world.trusting("ann")))  # type: ignore[arg-type]
    for _ in range(2):
        refused(world, trust, "is not signed")


def test_an_empty_variable_is_not_taken_for_none(
    world: PolicyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHC_POLICY", "")
    refused(
        world, patchc.Trust(), "^PATCHC_POLICY is set and empty, .*; name the file, or unset", "ann"
    )
    monkeypatch.setenv("PATCHC_POLICY", str(world.folder / "gone.toml"))
    refused(world, patchc.Trust(), "^policy .*/gone.toml: cannot read it: no such file", "ann")


@pytest.mark.parametrize("given", [None, "", "relative"])
def test_the_users_folder_is_that_of_the_xdg_rules(
    world: PolicyWorld, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("HOME", str(world.folder / "me"))
    if given is None:
        monkeypatch.delenv("XDG_CONFIG_HOME")
    else:
        monkeypatch.setenv("XDG_CONFIG_HOME", given)
    world.write(world.folder / "relative/patchc/policy.toml", "not used")
    path = world.write(world.folder / "me/.config/patchc/policy.toml", world.text("ann"))
    refused(world, patchc.Trust(), f"^policy {re.escape(str(path))}: .*is not signed")
    assert len(apply(world, patchc.Trust(), "ann").policies) == 1


@pytest.mark.parametrize("source", ["user", "machine"])
def test_only_what_is_not_there_is_no_policy(world: PolicyWorld, source: str) -> None:
    path = world.place(source)
    apply(world, patchc.Trust(), dry_run=True)  # neither the folder is there
    path.parent.mkdir(parents=True)
    apply(world, patchc.Trust(), dry_run=True)  # nor the file
    path.symlink_to(world.folder / "gone")
    refused(
        world, patchc.Trust(), f"^policy {re.escape(str(path))}: cannot read it: no such", "ann"
    )
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(world.folder / "gone")
    refused(
        world, patchc.Trust(), f"^policy {re.escape(str(path))}: cannot read it: no such", "ann"
    )
    path.parent.unlink()
    path.parent.write_text("a file in the folder's place")
    apply(world, patchc.Trust(), dry_run=True)
    path.parent.unlink()
    path.parent.symlink_to(path.parent)
    refused(world, patchc.Trust(), "cannot tell whether it is there: .* lead in a circle", "ann")


@pytest.mark.parametrize("source", ["user", "machine"])
def test_what_others_may_have_removed_is_not_taken_for_none(
    world: PolicyWorld, source: str
) -> None:
    folder = world.place(source).parent
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    refused(world, patchc.Trust(), f"others on this system can write {re.escape(str(folder))}, ")
    folder.chmod(0o1777)
    apply(world, patchc.Trust(), dry_run=True)


def test_a_folder_of_configurations_that_leads_nowhere_is_not_taken_for_none(
    world: PolicyWorld,
) -> None:
    """As where the disk that it is on has not come up."""
    path = world.place("user")
    path.parents[1].symlink_to(world.folder / "gone")
    refused(
        world, patchc.Trust(), f"^policy {re.escape(str(path))}: cannot read it: no such", "ann"
    )


@pytest.mark.parametrize("source", ["user", "machine"])
@pytest.mark.parametrize("hidden", ["file", "folder"])
def test_what_may_not_be_read_is_not_taken_for_none(
    world: PolicyWorld, monkeypatch: pytest.MonkeyPatch, source: str, hidden: str
) -> None:
    patch = world.model.signed("ann")
    apply(world, world.ask("call", "ann"), "ann", dry_run=True)  # with all that is imported
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        elsewhere = make_policy_world(folder, world.model, monkeypatch)
        path = elsewhere.write(elsewhere.place(source), elsewhere.text("ann"))
        closed = path if hidden == "file" else path.parent
        closed.chmod(0)
        copied = folder / "x.patchc"
        copied.write_bytes(patch.read_bytes())
        told = "cannot read it" if hidden == "file" else "cannot tell whether it is there"
        with (
            ordinary_user(),
            pytest.raises(patchc.SignatureError, match=f"{told}: Permission denied"),
        ):
            patchc.verify(copied)
        closed.chmod(0o755)


def test_the_policies_of_a_run_are_those_of_its_own_process(world: PolicyWorld) -> None:
    """What is written meanwhile holds for the next run: nothing is kept."""
    apply(world, patchc.Trust(), dry_run=True)
    world.ask("machine", "ann")
    refused(world, patchc.Trust(), "is not signed")
    world.place("machine").unlink()
    apply(world, patchc.Trust(), dry_run=True)
