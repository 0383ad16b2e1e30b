"""Policies on the command line: flags, the environment, and the file of options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from policy_world import PolicyWorld, SignedModel, make_policy_world, make_signed_model
from tiny_checkpoints import tree

import patchc


@pytest.fixture(scope="module")
def signed_model(tmp_path_factory: pytest.TempPathFactory) -> SignedModel:
    return make_signed_model(tmp_path_factory.mktemp("signed"))


@pytest.fixture
def world(
    tmp_path: Path, signed_model: SignedModel, monkeypatch: pytest.MonkeyPatch
) -> PolicyWorld:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    return make_policy_world(tmp_path, signed_model, monkeypatch)


def fails(code: int, told: str, *command: object) -> None:
    before = tree(Path())
    found, out, err = run(*command)
    assert (found, out) == (code, "")
    assert told in err
    assert err.count("\n") == 1
    assert tree(Path()) == before


def config(world: PolicyWorld, text: str) -> Path:
    world.write(world.folder / "patchc.toml", text)
    return Path("patchc.toml")


def test_a_report_names_the_signers_and_what_asked_for_them(world: PolicyWorld) -> None:
    world.ask("machine", "ben")
    patch, ids = world.model.signed("ann", "ben"), world.model.ids
    given = ("apply", patch, world.model.base, "-o", "out", "--trusted", *world.trusting("ann"))
    for more in (("--dry-run",), ()):
        code, out, err = run(*given, *more)
        assert (code, err) == (0, "")
        text = " ".join(out.split())
        asked = f"as this call and policy {world.place('machine')} ask"
        assert f"signed by {ids['ann']}, {ids['ben']}, {asked}" in text
    code, out, _ = run("revert", patch, "out", "--in-place", "--json")
    (answer,) = json.loads(out)["policies"]
    assert answer["source"] == f"policy {world.place('machine')}"
    assert answer["signed"]["valid"] == [ids["ben"]]
    assert answer["signed"]["satisfied"] is True
    assert code == 0
    code, out, _ = run("revert", patch, world.model.tuned, "-o", "back", "--trusted", "ann-keys")
    assert (code, "signed by" in out) == (0, True)


def test_without_a_policy_no_signer_is_named(world: PolicyWorld) -> None:
    code, out, _ = run("apply", world.model.signed("ann"), world.model.base, "-o", "out")
    assert (code, "signed by" in out) == (0, False)


@pytest.mark.parametrize("verb", ["apply", "revert"])
@pytest.mark.parametrize("where", [("-o", "out"), ("-o", "out", "--dry-run"), ("--in-place",)])
def test_what_is_not_signed_is_refused(
    world: PolicyWorld, verb: str, where: tuple[str, ...]
) -> None:
    model = world.model.base if verb == "apply" else world.model.tuned
    before = tree(world.model.folder)
    patch = world.model.signed()
    told = f"{patch}: the patch is not signed, and a signature of a trusted key is required"
    fails(23, told, verb, patch, model, *where, "--trusted", "ann-keys")
    world.ask("user", "ann")
    fails(23, f"policy {world.place('user')}: {told}", verb, patch, model, *where)
    assert tree(world.model.folder) == before


def test_fold_takes_what_is_signed_alone(world: PolicyWorld) -> None:
    patchc.diff(world.model.tuned, world.model.base, out="back.patchc", chunk_bits=12)
    given = ("fold", world.model.signed("ann"), "back.patchc", "--base", world.model.base)
    asked = (*given, "-o", "both.patchc", "--trusted", "ann-keys")
    fails(23, "back.patchc: the patch is not signed", *asked)
    assert run("sign", "back.patchc", "--key", world.model.private("ann"))[0] == 0
    code, out, _ = run(*asked)
    assert (code, f"signed by {world.model.ids['ann']}" in " ".join(out.split())) == (0, True)


def test_evaluate_asks_for_signatures_too(world: PolicyWorld) -> None:
    Path("asked.jsonl").write_text('{"prompt": "brew a tea"}\n')
    given = ("evaluate", world.model.base, "--harmful", "asked.jsonl", "--harmless", "asked.jsonl")
    patch = ("--patch", world.model.signed(), "-o", "replies.jsonl")
    fails(23, "the patch is not signed", *given, *patch, "--trusted", "ann-keys")


@pytest.mark.parametrize("asked", [(), ("--trusted", "eve-keys"), ("--trusted", "ben-keys")])
def test_no_option_weakens_a_policy(
    world: PolicyWorld, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    """One signature is what every flag would take here, and each policy asks for two."""
    patch, policy = world.model.signed("ben", "eve"), world.text("ann", "ben", require=2)
    given = (
        "apply",
        patch,
        world.model.base,
        "-o",
        "out",
        *asked,
        *(["--require", 1] if asked else []),
    )
    options = config(world, f"[policy]\n{policy}")
    told = "too few signatures: 1 of 2 trusted keys have signed"
    fails(23, f"config {options}: [policy]: {patch}: {told}", *given, "--config", options)
    monkeypatch.setenv("PATCHC_POLICY", "policy.toml")
    world.write(Path("policy.toml"), policy)
    fails(23, f"policy policy.toml: {patch}: {told}", *given)
    fails(23, "allow_code is not true there", *given, "--allow-code")


def test_the_table_of_a_file_of_options(world: PolicyWorld) -> None:
    options = config(world, '[policy]\ntrusted = ["ann-keys"]\n[apply]\nout = "out"\n')
    given = ("apply", world.model.signed("ann"), world.model.base, "--config", options)
    code, out, err = run(*given)
    assert (code, err) == (0, "")
    assert f", as config {options}: [policy] asks" in " ".join(out.split())
    # Commands that take no patch do not mind it.
    assert run("diff", world.model.base, world.model.tuned, "-o", "x", "--config", options)[0] == 0
    code, out, _ = run("verify", world.model.signed(), "--config", options)
    assert (code, "not as required: 0 of 1" in out) == (23, True)


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("policy = 1\n", 23, "[policy] is 1; write a table"),
        ("[policy]\n", 23, "[policy]: trusted is missing"),
        ('[policy]\ntrusted = ["gone"]\n', 23, "[policy]: cannot read the trusted keys gone"),
        (
            '[apply]\ntrusted = ["ann-keys"]\n',
            2,
            "[apply] trusted would not hold where the command",
        ),
        ("[apply]\nrequire = 1\n", 2, "[apply] require would not hold where the command line says"),
        ('[policy]\ntrusted = ["ann-keys"]\n[apply]\ntrusted = ["eve-keys"]\n', 2, "write it in"),
    ],
)
def test_a_table_that_cannot_be_used(world: PolicyWorld, text: str, code: int, told: str) -> None:
    options, patch = config(world, text), world.model.signed("ann")
    fails(code, told, "apply", patch, world.model.base, "-o", "out", "--config", options)


def test_a_file_of_options_that_others_can_write_is_no_policy(world: PolicyWorld) -> None:
    options = config(world, '[policy]\ntrusted = ["ann-keys"]\n')
    options.chmod(0o666)
    given = (world.model.signed("ann"), world.model.base, "-o", "out", "--config", options)
    fails(23, "others on this system can write patchc.toml", "apply", *given)
    options.write_text("[apply]\nthreads = 1\n")
    assert run("apply", *given)[0] == 0


def test_verify_answers_and_then_refuses(world: PolicyWorld) -> None:
    world.ask("machine", "ann", "ben", require=2)
    patch = world.model.signed("ann")
    code, out, err = run("verify", patch, world.model.base)
    text = " ".join(out.split())
    assert code == 23
    assert f"signature (policy {world.place('machine')}) not as required: 1 of 2" in text
    assert "model base" in text
    assert f"policy {world.place('machine')}: {patch}: too few signatures" in err
    code, out, _ = run("verify", patch, "--json")
    report = json.loads(out)
    assert (code, report["integrity"], report["signature"]) == (23, "intact", "not as required")
    assert report["policies"][0]["signed"]["satisfied"] is False
    code, out, err = run("verify", world.model.signed("ann", "ben"))
    assert (code, err) == (0, "")
    assert "as required: 2 of 2" in out
