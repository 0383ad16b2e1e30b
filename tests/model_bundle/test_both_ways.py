"""Bundles are those of OpenSSF's own program, which takes ours, and we take its."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from curve_keys_made import CURVES, write_keys

import patchc

REFUSES_NETWORK = """
import sys
def refuse(event, _arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(f"it asked for the network: {event}")
sys.addaudithook(refuse)
from patchc.cli.main import run
run()
"""


def model_signing(*arguments: object) -> tuple[int, str]:
    """Run OpenSSF's own program."""
    done = subprocess.run(
        [sys.executable, "-m", "model_signing", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_other_program_takes_a_bundle_and_refuses_a_changed_model(signed) -> None:
    arguments = ("verify", "key", signed.model, "--public_key", signed.public)
    arguments += ("--signature", signed.bundle)
    assert model_signing(*arguments) == (0, "Verification succeeded\n")
    (signed.model / "config.json").write_text("[]")
    code, told = model_signing(*arguments)
    assert code == 1
    assert "Hash mismatch for 'config.json'" in told


def test_a_bundle_of_the_other_program_is_taken(unsigned) -> None:
    code, told = model_signing(
        *("sign", "key", unsigned.model, "--private_key", unsigned.key),
        *("--signature", unsigned.bundle),
    )
    assert code == 0, told
    code, out, errors = unsigned.verify("--json")
    assert code == 0, errors
    report = json.loads(out)
    assert report["signed_as"] == "model"
    assert report["left_out"] == [".gitattributes"]
    assert "tokenizer/vocab.txt" in report["files"]
    assert len(report["files"]) == 5


@pytest.mark.parametrize("curve", sorted(CURVES))
def test_every_curve_signs_and_an_encrypted_key_opens_with_its_password(
    unsigned, tmp_path: Path, curve: str
) -> None:
    key = write_keys(tmp_path / curve, "key", curve, b"sesame")
    made = patchc.sign_model(unsigned.model, key=key, out=unsigned.bundle, password="sesame")
    found = patchc.verify_model(
        unsigned.model, signature=unsigned.bundle, trusted=key.with_name("key.pub")
    )
    assert (found.digest, found.key_id, found.files) == (made.digest, made.key_id, made.files)


def test_a_bundle_may_move_into_the_folder_and_the_folder_may_be_renamed(signed) -> None:
    model = signed.model.rename(signed.model.with_name("renamed"))
    inside = signed.bundle.rename(model / "model.sig")
    code, out, errors = run(
        "verify-model", model, "--signature", inside, "--trusted", signed.public
    )
    assert code == 0, errors
    assert "not signed  .gitattributes, model.sig" in out
    assert model_signing(
        *("verify", "key", model, "--public_key", signed.public, "--signature", inside)
    ) == (0, "Verification succeeded\n")


def test_one_file_is_a_model_too(signed, tmp_path: Path) -> None:
    file = next(signed.model.glob("*-00001-*.safetensors"))
    bundle = tmp_path / "file.sig"
    code, _, errors = run("sign-model", file, "--key", signed.key, "-o", bundle)
    assert code == 0, errors
    arguments = ("verify-model", file, "--signature", bundle, "--trusted", signed.public)
    assert run(*arguments)[0] == 0
    assert model_signing(
        *("verify", "key", file, "--public_key", signed.public, "--signature", bundle)
    ) == (0, "Verification succeeded\n")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert run(*arguments)[0] == 23


def test_the_right_key_is_found_among_several(signed, tmp_path: Path) -> None:
    keys = tmp_path / "trusted"
    for name in ("one", "two"):
        write_keys(keys, name)
    (keys / "three.pub").write_bytes(signed.public.read_bytes())
    found = patchc.verify_model(signed.model, signature=signed.bundle, trusted=[keys])
    assert found.key == keys / "three.pub"


def test_nothing_asks_for_the_network_or_for_input(signed) -> None:
    commands = (
        ("sign-model", signed.model, "--key", signed.key, "-o", signed.bundle.with_name("2.sig")),
        ("verify-model", signed.model, "--signature", signed.bundle, "--trusted", signed.public),
    )
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-c", REFUSES_NETWORK, *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


def test_links_are_refused_and_followed_if_asked(signed, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (signed.model / "config.json").rename(blob)
    (signed.model / "config.json").symlink_to(blob)
    code, _, told = signed.verify()
    assert code == 4
    assert f"{signed.model / 'config.json'} is a link; with --follow-links" in told
    again = tmp_path / "again.sig"
    sign = ("sign-model", signed.model, "--key", signed.key, "-o", again)
    assert run(*sign)[0] == 4
    assert not again.exists()
    assert signed.verify("--follow-links")[0] == 0
    assert run(*sign, "--follow-links")[0] == 0
    assert signed.verify("--follow-links", "--signature", again)[0] == 0
    blob.write_text("other")
    assert signed.verify("--follow-links")[0] == 23


def test_a_snapshot_of_a_hub_is_all_links_its_bundle_too(signed, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    inside = signed.bundle.rename(signed.model / "model.sig")
    for number, path in enumerate(sorted(signed.model.rglob("*"))):
        if path.is_file():
            path.rename(blobs / str(number))
            path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    arguments = ("verify-model", signed.model, "--signature", inside, "--trusted", signed.public)
    assert run(*arguments)[0] == 4
    code, out, errors = run(*arguments, "--follow-links")
    assert code == 0, errors
    assert "model.sig" in out


def test_a_link_to_a_folder_is_refused_since_no_bundle_would_hold_its_files(
    signed, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (signed.model / "more").symlink_to(tmp_path / "elsewhere")
    code, _, told = signed.verify("--follow-links")
    assert code == 4
    assert "is a link to a folder" in told
    out = tmp_path / "again.sig"
    code, _, _ = run("sign-model", signed.model, "--key", signed.key, "-o", out, "--follow-links")
    assert code == 4


def test_a_pipe_in_the_folder_is_refused_at_once(signed) -> None:
    os.mkfifo(signed.model / "pipe")
    code, _, told = signed.verify()
    assert code == 4
    assert "pipe is not a file" in told


@pytest.mark.parametrize("what", ["bundle", "trusted key", "key"])
def test_a_pipe_in_place_of_a_file_does_not_wait(signed, tmp_path: Path, what: str) -> None:
    pipe, out = tmp_path / "pipe.pub", tmp_path / "again.sig"
    os.mkfifo(pipe, 0o600)
    verify = ("verify-model", signed.model, "--signature")
    command = {
        "bundle": (*verify, pipe, "--trusted", signed.public),
        "trusted key": (*verify, signed.bundle, "--trusted", pipe),
        "key": ("sign-model", signed.model, "--key", pipe, "-o", out),
    }[what]
    code, _, told = run(*command)
    assert code == 23
    assert "it is a pipe" in " ".join(told.split())


def test_what_an_interrupted_run_in_place_left_is_not_signed(unsigned) -> None:
    (unsigned.model / ".patchc-journal").write_bytes(b"")
    code, _, told = run("sign-model", unsigned.model, "--key", unsigned.key, "-o", unsigned.bundle)
    assert code == 10
    assert "is left from a run that was cut off" in " ".join(told.split())
    assert not unsigned.bundle.exists()


def test_an_interrupt_leaves_nothing(unsigned) -> None:
    def interrupt(event: patchc.ProgressEvent) -> None:
        assert (event.stage, event.unit) == ("hash files", "bytes")
        raise KeyboardInterrupt

    before = sorted(unsigned.bundle.parent.iterdir())
    with pytest.raises(KeyboardInterrupt):
        patchc.sign_model(unsigned.model, key=unsigned.key, out=unsigned.bundle, progress=interrupt)
    assert sorted(unsigned.bundle.parent.iterdir()) == before


def test_a_bundle_is_never_replaced_nor_written_into_the_model(signed) -> None:
    before = signed.bundle.read_bytes()
    sign = ("sign-model", signed.model, "--key", signed.key, "-o")
    assert run(*sign, signed.bundle)[0] == 11
    assert run(*sign, signed.model / "model.sig")[0] == 11
    assert signed.bundle.read_bytes() == before
    assert not (signed.model / "model.sig").exists()
