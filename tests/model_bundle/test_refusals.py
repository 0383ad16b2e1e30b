"""Whatever is not as it was signed is refused, each for its own reason, with code 23."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from curve_keys_made import write_keys

import patchc


def rename(model: Path) -> None:
    (model / "config.json").rename(model / "settings.json")


def change(model: Path) -> None:
    (model / "tokenizer/vocab.txt").write_text("tea\nsalt\n")


def change_word(model: Path) -> None:
    shard = sorted(model.glob("*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (change, "'tokenizer/vocab.txt' was changed after"),
    "one bit of a weight": (change_word, "00001-of-00002.safetensors' was changed after"),
    "removed": (lambda m: (m / "config.json").unlink(), "'config.json' was signed and not there"),
    "added": (lambda m: (m / "extra.py").write_text("1"), "'extra.py' was added after"),
    "a name for the screen": (
        lambda m: (m / "a\x1b[2Jb").write_text("1"),
        r"'a\x1b[2Jb' was added after",
    ),
    "hidden": (lambda m: (m / "tokenizer/.gitignore").write_text(""), ".gitignore' was added"),
    "renamed": (rename, "'config.json' was renamed to 'settings.json' after"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_not_what_was_signed(signed, case: str) -> None:
    act, reason = FOLDERS[case]
    assert signed.verify()[0] == 0
    act(signed.model)
    code, out, told = signed.verify()
    assert (code, out) == (23, "")
    assert reason in told


def test_another_key_and_a_forged_key_id(signed, tmp_path: Path) -> None:
    other = write_keys(tmp_path / "other", "other").with_name("other.pub")
    arguments = ("verify-model", signed.model, "--trusted", other, "--signature")
    code, _, told = run(*arguments, signed.bundle)
    assert code == 23
    assert "which is not trusted" in " ".join(told.split())
    whole = json.loads(signed.bundle.read_text())
    whole["verificationMaterial"]["publicKey"]["hint"] = sha256(other.read_bytes()).hexdigest()
    forged = tmp_path / "forged.sig"
    forged.write_text(json.dumps(whole))
    code, _, told = run(*arguments, forged)
    assert code == 23
    assert "the signature is not that of" in " ".join(told.split())


def signed_again(signed, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the statement, and sign it with the trusted key, as a signer of ill will could."""
    whole = json.loads(signed.bundle.read_text())
    envelope = whole["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(statement)
    digests = [bytes.fromhex(one["digest"]) for one in statement["predicate"]["resources"]]
    statement["subject"][0]["digest"]["sha256"] = sha256(b"".join(digests)).hexdigest()
    payload = json.dumps(statement).encode()
    kind = envelope["payloadType"]
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    key = load_pem_private_key(signed.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    signed.bundle.write_text(json.dumps(whole))


def named(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda s: s["predicate"]["resources"][0].update(name=name)


def without_a_file(statement: dict[str, Any]) -> None:
    """A bundle that tells its reader to ignore what it does not sign."""
    statement["predicate"]["resources"].pop()
    statement["predicate"]["serialization"]["ignore_paths"] = ["."]


STATEMENTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "outside": (named("../config.json"), "which is no path inside a model's folder"),
    "absolute": (named("/etc/passwd"), "which is no path inside a model's folder"),
    "dot inside": (named("tokenizer/./vocab.txt"), "which is no path inside a model's folder"),
    "ignores": (without_a_file, "was added after"),
    "twice": (
        lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]),
        "it names the file 'config.json' twice",
    ),
    "no file": (lambda s: s["predicate"]["resources"].clear(), "it names no file"),
    "weak hash": (
        lambda s: s["predicate"]["serialization"].update(hash_type="md5"),
        "hash_type 'md5' is not one of",
    ),
    "shards": (
        lambda s: s["predicate"]["serialization"].update(method="shards"),
        "method is 'shards' and not 'files'",
    ),
    "another statement": (lambda s: s.update(predicateType="x"), "predicateType is 'x'"),
    "two subjects": (lambda s: s["subject"].append(s["subject"][0]), "it has 2 subjects"),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_a_statement_that_a_trusted_key_signed_is_not_believed_blindly(signed, case: str) -> None:
    change, reason = STATEMENTS[case]
    signed_again(signed, lambda _: None)
    assert signed.verify()[0] == 0
    signed_again(signed, change)
    code, _, told = signed.verify()
    assert code == 23
    assert reason in told


BUNDLES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "is not a model-signing bundle that patchc reads: it is empty; get"),
    "binary": (lambda _: b"\xff\xfe\0", "it is not UTF-8 text"),
    "no object": (lambda _: b"[]", "it is no object"),
    "deep": (lambda _: b"[" * 100_000, "nested more than"),
    "twice": (lambda b: b.replace(b"{", b'{"mediaType":"x",', 1), "the key 'mediaType' is given"),
    "certificate": (
        lambda b: b.replace(b'"publicKey"', b'"certificate"'),
        "it was signed with a certificate or through Sigstore",
    ),
    "no signature": (
        lambda b: json.dumps(
            json.loads(b) | {"dsseEnvelope": json.loads(b)["dsseEnvelope"] | {"signatures": []}}
        ).encode(),
        "it has 0 signatures and not one",
    ),
    "large": (lambda b: b + b" " * (4 << 20), "it has more than 4,194,304 bytes"),
}


@pytest.mark.parametrize("case", BUNDLES)
def test_a_malformed_bundle(signed, case: str) -> None:
    spoil, reason = BUNDLES[case]
    signed.bundle.write_bytes(spoil(signed.bundle.read_bytes()))
    code, _, told = signed.verify()
    assert code == 23
    assert reason in told


def test_a_bundle_that_is_not_there(signed) -> None:
    signed.bundle.unlink()
    code, _, told = signed.verify()
    assert code == 23
    assert "cannot read: no such file or folder; check the path" in told


def test_the_help_names_the_extra() -> None:
    """Square brackets would be taken for markup, and not be shown."""
    assert "It needs the oms extra." in run("sign-model", "--help")[1]


def test_no_flip_and_no_cut_is_anything_but_refused_or_without_effect(signed) -> None:
    content = signed.bundle.read_bytes()
    arguments = {"signature": signed.bundle, "trusted": signed.public}
    whole = patchc.verify_model(signed.model, **arguments)
    start = content.index(b'"payload"')
    end = content.index(b'"keyid"')
    refused = 0
    for at in range(0, len(content), 7):
        signed.bundle.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            assert patchc.verify_model(signed.model, **arguments) == whole
            assert not start <= at < end - 8, at  # the last bits of base64 say nothing
        except patchc.SignatureError:
            refused += 1
        signed.bundle.write_bytes(content[:at])
        with pytest.raises(patchc.SignatureError):
            patchc.verify_model(signed.model, **arguments)
    assert refused > 0.9 * len(content) / 7


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "k256", "nonsense", "missing", "folder"])
def test_keys_of_other_kinds(signed, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "keys-of-another-kind"
    folder.mkdir()
    private = folder / "key"
    if kind == "nonsense":
        for path in (private, folder / "key.pub"):
            path.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
            path.chmod(0o600)
    elif kind not in ("missing", "folder"):
        write_keys(folder, "key", kind)
    out = tmp_path / "again.sig"
    code, _, told = run("sign-model", signed.model, "--key", private, "-o", out)
    assert code == 23
    assert str(private) in " ".join(told.split())
    assert not out.exists()
    trusted = folder if kind == "folder" else folder / "key.pub"
    arguments = ("--signature", signed.bundle, "--trusted", trusted)
    code, _, told = run("verify-model", signed.model, *arguments)
    assert code == 23
    assert str(trusted) in " ".join(told.split())


def test_public_and_private_keys_are_not_confused(signed, tmp_path: Path) -> None:
    out = tmp_path / "again.sig"
    code, _, told = run("sign-model", signed.model, "--key", signed.public, "-o", out)
    assert code == 23
    assert "is not a private key" in " ".join(told.split())
    code, _, told = signed.verify("--trusted", signed.key)
    assert code == 23
    assert "is a private key" in told


def test_passwords(signed, tmp_path: Path) -> None:
    key = write_keys(tmp_path / "locked", "key", password=b"sesame")
    for password, reason in ((None, "is encrypted"), ("poppy", "has another password")):
        with pytest.raises(patchc.SignatureError, match=reason):
            patchc.sign_model(signed.model, key=key, out=tmp_path / "2.sig", password=password)


@pytest.mark.parametrize("package", ["model_signing.signing", "cryptography.exceptions"])
def test_a_missing_package_names_the_extra(
    signed, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    checked, _, told = signed.verify()
    assert (checked, "[oms]" in told) == ((0, False) if "model" in package else (16, True))
    code, _, told = run(
        *("sign-model", signed.model, "--key", signed.key, "-o", signed.bundle.with_name("2.sig"))
    )
    assert code == 16
    assert "[oms]" in " ".join(told.split())
